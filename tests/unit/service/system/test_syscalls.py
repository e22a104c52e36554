"""What a service may ask of the kernel: the filter, tried by root of a real container.

Each question is put to the kernel outside of a container as well, where it is answered: a refusal
that nobody made would be seen.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from machineos.host.unit.unitfile import exec_line
from unit.service.bed import service_of as service
from unit.service.system.containers import shell
from waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from unit.service.system.containers import Bed
    from unit.service.system.store import Store

pytestmark = [
    pytest.mark.system,
    pytest.mark.tool("lxc-start"),
    pytest.mark.tool("mksquashfs"),
    pytest.mark.tool("mkfs.ext4"),
    pytest.mark.tool("busybox"),
]
_ASK = """\
import ctypes, errno, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(number, *words):
    words = [ctypes.c_ulong(word) for word in words]
    result = libc.syscall(ctypes.c_long(number), *words)
    return errno.errorcode[ctypes.get_errno()] if result < 0 else "done"
def apart(ask, *words):
    # In a process of its own: it may change, or end, what asks.
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, ask(*words).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    return os.read(read, 100).decode() or "killed"
def say(name, answer):
    print("CALL", name, answer, flush=True)
"""
_DENIED = """\
NUMBERS = {
    "acct": 163, "add_key": 248, "adjtimex": 159, "bpf": 321, "chroot": 161, "clock_adjtime": 305,
    "clock_settime": 227, "delete_module": 176, "finit_module": 313, "fsconfig": 431,
    "fsmount": 432, "fsopen": 430, "fspick": 433, "init_module": 175, "io_uring_enter": 426,
    "io_uring_register": 427, "io_uring_setup": 425, "ioperm": 173, "iopl": 172, "kcmp": 312,
    "kexec_file_load": 320, "kexec_load": 246, "keyctl": 250, "lookup_dcookie": 212,
    "memfd_secret": 447, "migrate_pages": 256, "modify_ldt": 154, "mount": 165,
    "mount_setattr": 442, "move_mount": 429, "move_pages": 279, "name_to_handle_at": 303,
    "open_by_handle_at": 304, "open_tree": 428, "perf_event_open": 298, "pidfd_getfd": 438,
    "pivot_root": 155, "process_madvise": 440, "process_vm_readv": 310, "process_vm_writev": 311,
    "ptrace": 101, "quotactl": 179, "quotactl_fd": 443, "reboot": 169, "request_key": 249,
    "setdomainname": 171, "sethostname": 170, "setns": 308, "settimeofday": 164, "swapoff": 168,
    "swapon": 167, "syslog": 103, "umount2": 166, "uselib": 134, "userfaultfd": 323,
    "vhangup": 153,
}
for name, number in NUMBERS.items():
    say(name, call(number, 0, 0, 0, 0, 0))
def child(flags):
    pid = libc.syscall(56, flags | 17, 0, 0, 0, 0)
    if pid == 0: os._exit(0)
    word = errno.errorcode[ctypes.get_errno()] if pid < 0 else "done"
    if pid > 0: os.waitpid(pid, 0)
    return word
say("clone(NEWUSER)", child(0x10000000))
say("clone(NEWUSER|NEWNS)", child(0x10020000))
say("clone", child(0))
say("clone3", call(435, 0, 0))
"""
_SOCKETS = """\
for family in (0, *range(3, 10), *range(11, 16), *range(17, 50), 0xffff, 1 << 31, (1 << 32) - 1):
    say(f"socket({family})", call(41, family, 2, 0))
    say(f"socketpair({family})", call(53, family, 2, 0, 0))
for family in (1, 2, 10, 16, 40):
    say(f"socket(2**32+{family})", call(41, (1 << 32) + family, 2, 0))
    say(f"socket(2**63+{family})", call(41, (1 << 63) + family, 2, 0))
for protocol in (*range(1, 32), (1 << 32), (1 << 63) + 15):
    say(f"netlink({protocol})", call(41, 16, 3, protocol))
for family in (1, 2, 10, 16):
    for kind in (2, 2 | 0x80000 | 0x800):
        say(f"good({family},{kind})", call(41, family, kind, 0))
pair = (ctypes.c_int * 2)()
say("good(pair)", call(53, 1, 1, 0, ctypes.addressof(pair)))
"""
_PERSONALITIES = """\
ALLOWED = (0, 8, 0xffffffff, 0x20000, 0x20008)
for bit in range(32):
    for other in (0, 8, 0x20000, 0x20008):
        if (1 << bit | other) not in ALLOWED:
            say(f"personality({1 << bit | other:#x})", apart(call, 135, 1 << bit | other))
    if bit: say(f"personality(-{bit})", apart(call, 135, (1 << 32) - 1 - (1 << bit)))
for value in (1 << 32, 1 << 63, (1 << 64) - 1, (1 << 32) | 8, 0xfffdfff7, 0xfffdffff, 0xfffffff7):
    say(f"personality({value:#x})", apart(call, 135, value))
for value in ALLOWED:
    say(f"good({value:#x})", apart(call, 135, value))
"""
# Own code in a private mapping of a signed file, at once or step by step (PR_GET_MDWE is 66).
_MEMORY = """\
def at_once():
    try: mmap.mmap(os.open("/bin/busybox", 0), 4096, flags=mmap.MAP_PRIVATE, prot=7)
    except OSError as error: return errno.errorcode[error.errno]
    return "done"
def later(first):
    memory = mmap.mmap(os.open("/bin/busybox", 0), 4096, flags=mmap.MAP_PRIVATE, prot=first)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(memory)) if first & 2 else None
    return call(10, begin, 4096, 5) if begin else "no"
say("rwx", apart(at_once))
say("rw-rx", apart(later, 3))
say("mdwe", str(libc.prctl(66, 0, 0, 0, 0)))
say("unlock", apart(call, 157, 65, 0, 0, 0, 0))
for line in open("/proc/self/status"):
    key, _, value = line.partition(":")
    if key in ("Seccomp_filters", "NoNewPrivs"): say(key, value.strip())
say("setns", call(308, 0, 0))
"""


# A filter that allows everything, and then the words that follow.
FILTERED = (
    sys.executable, "-IS", "-c",
    "import ctypes, os, struct, sys\n"
    "code = ctypes.create_string_buffer(struct.pack('<HBBI', 6, 0, 0, 0x7fff0000), 8)\n"
    "where = struct.pack('<HxxxxxxQ', 1, ctypes.addressof(code))\n"
    "program = ctypes.create_string_buffer(where, 16)\n"
    "assert ctypes.CDLL(None).prctl(22, 2, ctypes.byref(program), 0, 0) == 0\n"
    "os.execv(sys.argv[1], sys.argv[1:])\n",
)  # fmt: skip


def answers(text: str) -> dict[str, str]:
    words = [line.split(" ")[1:] for line in text.splitlines() if line.startswith("CALL")]
    return {name: answer.strip() for name, answer in words}


def outside(questions: str) -> dict[str, str]:
    """Put them to the kernel without a container."""
    ended = subprocess.run(
        [sys.executable, "-c", _ASK + questions], capture_output=True, text=True, check=True,
        timeout=PATIENCE,
    )  # fmt: skip
    return answers(ended.stdout)


def inside(bed: Bed, store: Store, tree: Path, questions: str) -> dict[str, str]:
    """Put them to the kernel as root of a container, which sees the host's own Python: the only
    change to the container as it is planned."""
    for name in ("usr", "lib", "lib64"):
        (tree / name).mkdir()
    end = 'print("end", flush=True)\nos.execv("/bin/busybox", ["sleep", "60"])\n'
    (tree / "etc/ask.py").write_text(_ASK + questions + end)
    built = store.add(tree, shell("/usr/bin/python3 /etc/ask.py"))
    bed.manager(service("web", built)).reconcile()
    config = bed.folders.lxc / "web/config"
    for name in ("usr", "lib", "lib64"):
        entry = f"/{name} {name} none rbind,ro 0 0"
        config.write_text(config.read_text() + f'lxc.mount.entry = "{entry}"\n')
    bed.units.stop(["machineos-web.service"])
    bed.units.start(["machineos-web.service"])
    return answers(bed.wait_output("web", "\nend\n"))


@pytest.mark.attack(
    "service",
    "mounts, makes namespaces, loads programs into the kernel, takes keys, traces",
    "EPERM, ENOSYS",
)
def test_hostile_system_calls_are_refused(bed: Bed, store: Store, busybox_tree: Path) -> None:
    """By root of the namespace, which may do more than anybody else in there."""
    found = inside(bed, store, busybox_tree, _DENIED)
    assert len(found) == 60
    assert (found.pop("clone"), found.pop("clone3")) == ("done", "ENOSYS")
    assert {name: word for name, word in found.items() if word != "EPERM"} == {}


@pytest.mark.attack(
    "service",
    "opens AF_VSOCK to the hypervisor, AF_ALG, AF_PACKET, netlink other than routes",
    "refused, and no module is loaded",
)
def test_sockets_have_one_of_four_families(bed: Bed, store: Store, busybox_tree: Path) -> None:
    before = outside(_SOCKETS)
    assert "done" in {before["socket(17)"], before["socket(40)"], before["netlink(15)"]}
    assert before["socket(2**32+2)"] == "done"  # the kernel looks at the lower half
    found = inside(bed, store, busybox_tree, _SOCKETS)
    assert found.keys() == before.keys()
    good = {name for name in found if name.startswith("good")}
    assert len(good) == 9
    assert {found.pop(name) for name in good} == {"done"}
    links = {name for name in found if name.startswith("netlink")}
    assert {found.pop(name) for name in links} == {"EPROTONOSUPPORT"}
    assert {name: word for name, word in found.items() if word != "EAFNOSUPPORT"} == {}


@pytest.mark.attack(
    "service",
    "takes a personality that makes reading imply executing",
    "EPERM",
)
def test_only_harmless_personalities(bed: Bed, store: Store, busybox_tree: Path) -> None:
    before = outside(_PERSONALITIES)
    assert before["personality(0x400000)"] == "done"  # READ_IMPLIES_EXEC
    assert before["personality(0x100000000)"] == "done"
    found = inside(bed, store, busybox_tree, _PERSONALITIES)
    assert len(found) > 150
    good = {name for name in found if name.startswith("good")}
    assert len(good) == 5
    assert {found.pop(name) for name in good} == {"done"}
    assert {name: word for name, word in found.items() if word != "EPERM"} == {}


@pytest.mark.attack(
    "service",
    "maps memory executable, writes into a private mapping of a signed file",
    "refused",
)
def test_a_service_is_locked_and_has_its_filter(bed: Bed, store: Store, busybox_tree: Path) -> None:
    """That no memory becomes code is set for lxc-start, and neither costs the container's filter
    nor can be undone in it."""
    before = outside(_MEMORY.replace("/bin/busybox", sys.executable))
    assert (before["rwx"], before["rw-rx"], before["mdwe"]) == ("done", "done", "0")
    found = inside(bed, store, busybox_tree, _MEMORY)
    assert found.pop("Seccomp_filters") >= "1"
    assert found == {
        "rwx": "EACCES",
        "rw-rx": "EACCES",
        "mdwe": "1",
        "unlock": "EPERM",
        "NoNewPrivs": "1",
        "setns": "EPERM",
    }


def test_lxc_loads_its_filter_below_another(bed: Bed, store: Store, busybox_tree: Path) -> None:
    """As an older systemd has one for the same option. LXC would silently load none."""
    built = store.add(busybox_tree, shell("cat /proc/self/status; echo end; exec sleep 60"))
    bed.manager(service("web", built)).reconcile()
    unit = bed.units.folder / "machineos-web.service"
    text = unit.read_text().replace("ExecStart=:/", f'ExecStart=:{exec_line(FILTERED)[1:]} "/', 1)
    unit.write_text(text.replace("/usr/bin/lxc-start ", '/usr/bin/lxc-start" ', 1))
    bed.units.stop(["machineos-web.service"])
    (bed.units.log / "machineos-web.service").unlink()
    bed.units.start(["machineos-web.service"])
    fields = dict(line.split(":\t") for line in bed.wait_output("web", "end\n").splitlines()[:-1])
    assert (fields["Seccomp"], fields["Seccomp_filters"]) == ("2", "2")


def program(number: int, *words: int) -> bytes:
    """Return a program of 64 bits that makes one 32-bit call, and ends with its error."""
    code = b"\xb8" + struct.pack("<I", number)
    for move, word in zip((b"\xbb", b"\xb9", b"\xba"), words, strict=True):
        code += move + struct.pack("<I", word)
    # int 0x80; edi = -eax, 0 for what went well; exit(edi)
    code += b"\xcd\x80\x89\xc7\xf7\xdf\x85\xff\x7f\x02\x31\xff"
    code += b"\xb8\x3c\0\0\0\x0f\x05"
    begin, head = 0x400000, 64 + 56
    elf = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    elf += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, begin + head, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    size = head + len(code)
    elf += struct.pack("<IIQQQQQQ", 1, 5, 0, begin, begin, size, size, 4096)
    return elf + code


CALLS_32 = {
    "socketcall": (102, 1, 0, 0),
    "mount": (21, 0, 0, 0),
    "personality": (136, 0x400000, 0, 0),
}


def inside_32(
    bed: Bed, store: Store, tree: Path, calls: Mapping[str, tuple[int, int, int, int]]
) -> dict[str, str]:
    """Return the errors of these calls in a container."""
    script = ""
    for name, (number, *words) in calls.items():
        path = tree / "bin" / f"{name}-32"
        path.write_bytes(program(number, *words))
        path.chmod(0o755)
        if subprocess.run([path], check=False).returncode < 0:
            pytest.skip("this kernel has no 32-bit calls")
        script += f"/bin/{name}-32; echo CALL {name} $?; "
    built = store.add(tree, shell(f"{script} echo end; exec sleep 60"))
    bed.manager(service("web", built)).reconcile()
    return answers(bed.wait_output("web", "end\n"))


def test_calls_of_32_bits_are_refused_too(bed: Bed, store: Store, busybox_tree: Path) -> None:
    found = inside_32(bed, store, busybox_tree, CALLS_32)
    assert found == dict.fromkeys(CALLS_32, "1")


@pytest.mark.xfail(strict=True, reason="LXC leaves the line out: machines have no 32-bit calls")
def test_a_socket_by_a_call_of_32_bits(bed: Bed, store: Store, busybox_tree: Path) -> None:
    assert inside_32(bed, store, busybox_tree, {"vsock": (359, 40, 1, 0)}) != {"vsock": "0"}
