"""The system calls that no service makes, as LXC's filter. Pure.

Version 2 of LXC's format: what has no line is allowed, until there is a list of what a service may
call. Whatever stands in brackets at the head of a section, LXC gives each line to every kind of
call that the processor has (64 bits, 32 bits, x32).

Two arguments are allowed by list all the same: which families of sockets, and which personality.
libseccomp takes one comparison of an argument in a line and no exception from a line, and compares
64 bits where the kernel looks at 32. So each line here refuses a part of what is not on the list,
together they refuse all of it, and a value with anything in its upper half is always refused.

libseccomp cannot look at the arguments of 32-bit calls for sockets, and LXC leaves such lines out:
``socketcall`` is refused whole, the single calls of Linux 4.3 are not in reach of this filter.
Machines have no 32-bit calls (``ia32_emulation=0`` on the command line).
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

EPERM, ENOSYS, EPROTONOSUPPORT, EAFNOSUPPORT = 1, 38, 93, 97
# The volume keys are in the kernel keyring; the rest is surface that no service needs, or belongs
# to the whole machine.
DENIED = (
    "acct",
    "add_key",
    "adjtimex",
    "bpf",
    "chroot",
    "clock_adjtime",
    "clock_adjtime64",
    "clock_settime",
    "clock_settime64",
    "create_module",
    "delete_module",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "get_kernel_syms",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "listmount",
    "lookup_dcookie",
    "lsm_get_self_attr",
    "lsm_list_modules",
    "lsm_set_self_attr",
    "map_shadow_stack",
    "memfd_secret",
    "migrate_pages",
    "modify_ldt",
    "mount",
    "mount_setattr",
    "move_mount",
    "move_pages",
    "name_to_handle_at",
    "nfsservctl",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pidfd_getfd",
    "pivot_root",
    "process_madvise",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "query_module",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "setdomainname",
    "sethostname",
    "setns",
    "settimeofday",
    "socketcall",
    "statmount",
    "stime",
    "swapoff",
    "swapon",
    "syslog",
    "umount",
    "umount2",
    "uretprobe",
    "uselib",
    "userfaultfd",
    "vhangup",
    "vm86",
    "vm86old",
)
_CLONE_NEWUSER = 0x10000000
# AF_UNIX, AF_INET, AF_INET6; and AF_NETLINK to NETLINK_ROUTE, which C libraries ask for addresses.
_FAMILIES, _NETLINK, _NETLINK_ROUTE = frozenset({1, 2, 10}), 16, 0
# PER_LINUX and PER_LINUX32, both also without random addresses, as debuggers of one's own have it;
# and the number that only asks. Not READ_IMPLIES_EXEC (0x400000): with it all data is code.
_PERSONALITY_BITS = 0x20008
_ASKS = 0xFFFFFFFF
_BITS = tuple(1 << bit for bit in range(32))


def policy() -> str:
    """Return the whole filter."""
    lines = ["2", "denylist", "[all]"]
    lines += [_deny(name, EPERM) for name in DENIED]
    # No user namespaces inside: they are how most kernel holes are reached.
    new_user = _masked(_CLONE_NEWUSER, _CLONE_NEWUSER)
    lines += [_deny(name, EPERM, new_user) for name in ("unshare", "clone")]
    # Its flags are in memory, out of reach of a filter: C libraries fall back to clone.
    lines.append(_deny("clone3", ENOSYS))
    for name in ("socket", "socketpair"):
        lines += _sockets(name)
    lines += _personalities()
    return "\n".join(lines) + "\n"


def _sockets(name: str) -> Iterator[str]:
    """Refuse every family below the last one that is allowed, all above it, and its protocols."""
    for family in sorted({*range(_NETLINK)} - _FAMILIES):
        yield _deny(name, EAFNOSUPPORT, _condition(0, family, "EQ"))
    yield _deny(name, EAFNOSUPPORT, _condition(0, _NETLINK, "GT"))
    netlink = _condition(0, _NETLINK, "EQ") + _condition(2, _NETLINK_ROUTE, "NE")
    yield _deny(name, EPROTONOSUPPORT, netlink)


def _personalities() -> Iterator[str]:
    """Refuse all but the allowed bits in any combination, and all 32 together.

    A line refuses a bit that is set where another is not. In a circle over the bits that are not
    allowed that leaves none of them or all; and with one of them the allowed bits have to be set.
    """
    others = [bit for bit in _BITS if not bit & _PERSONALITY_BITS]
    pairs = [*pairwise([*others, others[0]])]
    pairs += [(others[0], bit) for bit in _BITS if bit & _PERSONALITY_BITS]
    for is_set, is_not in pairs:
        yield _deny("personality", EPERM, _masked(is_set, is_set | is_not))
    yield _deny("personality", EPERM, _condition(0, _ASKS, "GT"))


def _deny(name: str, errno: int, condition: str = "") -> str:
    return f"{name} errno {errno} {condition}".rstrip()


def _condition(argument: int, value: int, comparison: str) -> str:
    """LXC reads the number as hexadecimal, and refuses the file without ``0x``."""
    return f"[{argument},{value:#x},SCMP_CMP_{comparison}]"


def _masked(value: int, mask: int) -> str:
    return f"[0,{value:#x},SCMP_CMP_MASKED_EQ,{mask:#x}]"
