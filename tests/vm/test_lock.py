"""The lock on execution, row by row: what gets foreign code to run, and what a signature opens.

Each row is tried on an appliance, inside what confines each of its daemons, in one of its services,
and where nothing locks. It has to succeed there, or the test could not fail.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
from pathlib import Path

import pytest

from machineos.build.os.bootkit import Anchored
from machineos.build.recipe.filesystem import make_layer
from machineos.build.recipe.veritylayer import VerityLayer
from machineos.core.run import run
from machineos.core.word import RootHash
from machineos.trust.keys.contents import CROSS
from machineos.trust.keys.keyset import KeyPair
from machineos.trust.keys.signer import FileSigner
from vm import probing, selfwritten, signing
from vm.appliance import Bench
from vm.guest import SHELL, Guest
from vm.selfwritten import RW, X
from vm.signing import Pairs
from waiting import PATIENCE

IPE = "/sys/kernel/security/ipe"
# How each row ends for root on its console, in a unit as those of the host are, and in a service:
# IPE alone does not judge what a private mapping of a signed file becomes.
ROWS = {
    "anonymous": ("EACCES", "EACCES", "EACCES"),
    "anonymous_later": ("EACCES", "EACCES", "EACCES"),
    "memfd": ("EACCES", "EACCES", "EACCES"),
    "dev_zero": ("EACCES", "EACCES", "EACCES"),
    "shared_memory": ("EACCES", "EACCES", "EACCES"),
    "signed_at_once": ("RAN", "EACCES", "EACCES"),
    "signed_then_executable": ("RAN", "EACCES", "EACCES"),
    "signed_then_writable": ("RAN", "EACCES", "EACCES"),
    "signed_there_and_back": ("RAN", "EACCES", "EACCES"),
    "personality": ("RAN", "EPERM", "EPERM"),
    "own_memory": ("EIO", "EIO", "EIO"),
    "traced": ("EPERM", "EPERM", "EPERM"),
    "written_by_call": ("EFAULT", "EFAULT", "EPERM"),
}
# On no Linux does process_vm_writev write where the process itself may not: this row has no control
# that runs. That the call is made well is seen by a page to which it does write.
NO_CONTROL = {"written_by_call": "EFAULT"}


# -- code that nobody signed


@pytest.fixture(scope="module")
def ways(spoiled: Guest, unlocked: Guest) -> dict[str, dict[str, str]]:
    """How every row ends: on this machine, in a service without walls of an appliance that locks
    nothing, and on the console, in a unit and in a service of an appliance."""
    here = run([sys.executable, probing.PROBE, probing.SIGNED], timeout=PATIENCE).text
    return {
        "here": json.loads(here),
        "open service": probing.in_a_service(unlocked, walls=False),
        "console": probing.on_the_console(spoiled),
        "unit": probing.in_a_unit(spoiled),
        "service": probing.in_a_service(spoiled),
    }


@pytest.mark.attack(
    "root",
    "executable anonymous memory: mmap, mprotect, memfd, /dev/zero, SysV shared memory",
    "EACCES",
)
@pytest.mark.attack(
    "root",
    "writes code into a private mapping of a signed file, four ways",
    "EACCES in every unit of the host",
)
@pytest.mark.attack(
    "root",
    "READ_IMPLIES_EXEC, then the heap",
    "EPERM in every unit of the host",
)
@pytest.mark.attack(
    "root",
    "writes code into its own pages through /proc/self/mem",
    "EIO",
)
@pytest.mark.attack(
    "root",
    "writes code into a child by ptrace",
    "EPERM",
)
@pytest.mark.attack(
    "root",
    "writes code into its own pages by process_vm_writev",
    "EFAULT, as on every Linux",
)
@pytest.mark.attack(
    "service",
    "gets code of its own to run on an appliance: executable memory, private mappings of signed "
    "files, READ_IMPLIES_EXEC, /proc/self/mem, ptrace, process_vm_writev",
    "EACCES, EPERM, EIO",
)
@pytest.mark.parametrize("row", ROWS)
def test_code_that_nobody_signed(ways: dict[str, dict[str, str]], row: str) -> None:
    outside = NO_CONTROL.get(row, "RAN")
    assert (ways["here"][row], ways["open service"][row]) == (outside, outside)
    assert (ways["console"][row], ways["unit"][row], ways["service"][row]) == ROWS[row]


def test_the_rows_are_those_of_the_probe(ways: dict[str, dict[str, str]]) -> None:
    for found in ways.values():
        assert set(found) == set(ROWS)


CALLS_OF_32_BITS = r"""
import ctypes, mmap, os
code = bytes.fromhex("b814000000cd80c3")  # mov eax, 20 (getpid); int 0x80; ret
if os.fork() == 0:
    memory = mmap.mmap(os.open("/usr/bin/true", os.O_RDONLY), 4096, mmap.MAP_PRIVATE, 7)
    memory[:len(code)] = code
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    os._exit(0 if ctypes.CFUNCTYPE(ctypes.c_int)(address)() == os.getpid() else 1)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.attack(
    "service",
    "opens sockets by calls of 32 bits, at which no filter can look",
    "the kernel has none: SIGSEGV",
)
def test_the_kernel_has_no_calls_of_32_bits(live: Guest, unlocked: Guest) -> None:
    """Root's console may write code into a mapping: that is how the call is made here."""
    assert unlocked.python(CALLS_OF_32_BITS) == "0"
    assert live.python(CALLS_OF_32_BITS) == str(-signal.SIGSEGV)


FIRST_ROOT = r"""
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True); data = open("/run/payload", "rb").read()
def ok(r): assert r >= 0, os.strerror(ctypes.get_errno())
if os.fork() == 0:
    ok(libc.unshare(0x20000)); ok(libc.mount(b"none", b"/", None, (1 << 18) | 16384, None))
    ns = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    ok(libc.umount2(b"/", 2)); ok(libc.setns(ns, 0x20000)); os.chdir("/")
    fd = os.open("/p", os.O_WRONLY | os.O_CREAT, 0o755); os.write(fd, data); os.close(fd)
    print("reached", os.path.exists("/init") or not os.path.exists("/usr/lib/systemd"), flush=True)
    try: os.execv("/p", ["busybox", "echo", "RAN"])
    except OSError as e: print(errno.errorcode[e.errno], flush=True); os._exit(0)
os.wait()
"""


@pytest.mark.attack(
    "root",
    "goes back to the root of the initrd and executes what it writes there",
    "EACCES",
)
def test_the_first_root_is_reached_and_nothing_of_it_runs(live: Guest, unlocked: Guest) -> None:
    """It is below the root that took its place, and root can write to it."""
    for guest, end in ((live, "EACCES"), (unlocked, "RAN")):
        guest.put(Path("/usr/bin/busybox").read_bytes(), "/run/payload")
        assert guest.python(FIRST_ROOT).splitlines() == ["reached True", end]


# -- what the policy is, and what guards it


WRITES = r"""
import errno, os
ipe = "/sys/kernel/security/ipe"
policy = open("/run/policy.p7s", "rb").read()
def tried(path, data):
    try:
        fd = os.open(path, os.O_WRONLY); os.write(fd, data); os.close(fd)
        return "taken"
    except OSError as e: return errno.errorcode[e.errno]
for name, data in (("new_policy", policy), ("policies/machineos/update", policy),
                   ("policies/machineos/delete", b"1"), ("policies/machineos/active", b"1"),
                   ("success_audit", b"0"), ("enforce", b"0")):
    print(name, tried(f"{ipe}/{name}", data))
print("apparmor", tried("/sys/kernel/security/apparmor/.load", b"x"))
"""


@pytest.mark.attack(
    "root",
    "switches IPE off, loads, updates, deletes or activates a policy that the product signed",
    "EPERM",
)
def test_the_policy_is_the_closed_one_and_nobody_changes_it(live: Guest, bench: Bench) -> None:
    assert live.must(f"ls {IPE}/policies; cat {IPE}/policies/machineos/version") == (
        "machineos\n1.1.1"
    )
    text = live.must(f"cat {IPE}/policies/machineos/policy")
    assert "boot_verified" not in text
    assert "op=KMODULE dmverity_roothash=sha256:" in text
    signer = Anchored(bench.keyset).signer("uefi-db")
    newer = b"policy_name=machineos policy_version=1.9.0\nDEFAULT action=ALLOW\n"
    live.put(signer.sign_content(newer), "/run/policy.p7s")
    assert live.python(WRITES).splitlines() == [
        "new_policy EPERM", "policies/machineos/update EPERM", "policies/machineos/delete EPERM",
        "policies/machineos/active EPERM", "success_audit EPERM", "enforce EPERM",
        "apparmor EACCES",
    ]  # fmt: skip
    assert live.must(f"cat {IPE}/enforce") == "1"


def test_nobody_can_have_what_would_change_it(live: Guest) -> None:
    mac_admin = 1 << 33
    bounding = live.must("sed -n 's/^CapBnd:\t//p' /proc/1/status")
    assert int(bounding, 16) & mac_admin == 0
    for name in ("bset", "inheritable"):
        low, high = live.must(f"cat /proc/sys/kernel/usermodehelper/{name}").split()
        assert (int(high) << 32 | int(low)) & mac_admin == 0


def test_the_parameters_of_the_kernel_are_set_for_good(live: Guest) -> None:
    names = ("kernel/yama/ptrace_scope", "kernel/kexec_load_disabled", "vm/memfd_noexec")
    for name, value in zip(names, ("3", "1", "2"), strict=True):
        assert live.must(f"cat /proc/sys/{name}") == value
    for name in names[:2]:
        assert live.sh(f"echo 0 > /proc/sys/{name}").status != 0
    words = live.must("cat /proc/cmdline").split()
    assert "lockdown=confidentiality" in words
    assert "bpf" not in live.must("cat /sys/kernel/security/lsm").split(",")


@pytest.mark.attack(
    "root",
    "mounts a signed device as fuseblk and serves other files",
    "there is no FUSE",
)
def test_no_process_serves_the_files_of_a_signed_device(live: Guest, unlocked: Guest) -> None:
    """With fuseblk IPE judges the device, and the content comes from a process."""
    for guest, there in ((live, False), (unlocked, True)):
        kinds = guest.must("cat /proc/filesystems").split()
        assert ("fuseblk" in kinds, "virtiofs" in kinds) == (there, there)
        assert bool(guest.sh("test -e /dev/fuse")) == there


def test_a_refusal_is_seen(live: Guest) -> None:
    live.must("cp /usr/bin/true /run/unsigned-program && chmod 755 /run/unsigned-program")
    assert live.sh("/run/unsigned-program").status == 126
    live.wait_until(
        "journalctl -b --no-pager | grep ipe_op=EXECUTE | grep -q /run/unsigned-program", SHELL
    )
    live.must("rm /run/unsigned-program")


# -- what a key opens


# What the signature of each opens: a module of a signed volume, a kernel for kexec_file_load, and a
# program of a volume with that signature (nobody: without one, which device mapper maps all the
# same). Each key that the kernel trusts opens all three where nothing locks; that of the manifest
# CA is trusted under the certificate by which the UKI's vouches for it.
OUTSIDE = {
    "publisher": ("taken", "taken", "RAN"),
    "uki": ("taken", "taken", "RAN"),
    "db": ("taken", "taken", "RAN"),
    "manifest CA": ("EKEYREJECTED", "ENOKEY", "ENOKEY"),
    "uki-cross": ("taken", "taken", "RAN"),
    "nobody": ("EKEYREJECTED", "ENODATA", "RAN"),
}
# Locked: modules are those of one volume, kexec is switched off.
LOCKED = {
    "publisher": ("EACCES", "EPERM", "RAN"),
    "uki": ("EACCES", "EPERM", "RAN"),
    "db": ("EACCES", "EPERM", "RAN"),
    "manifest CA": ("EACCES", "EPERM", "ENOKEY"),
    "uki-cross": ("EACCES", "EPERM", "RAN"),
    "nobody": ("EACCES", "EPERM", "EACCES"),
}
# Where a program writes its code, and the flags that it asks for its stack.
STACKS = {
    "asks": selfwritten.program("stack", stack=RW | X),
    "asks-elsewhere": selfwritten.program("data", stack=RW | X),
    "asks-not": selfwritten.program("stack", stack=RW),
}


@pytest.fixture(scope="module")
def pairs(bench: Bench) -> Pairs:
    ca = bench.keyset.key("manifest-ca")
    return {
        "publisher": bench.project.pair,
        "uki": bench.keyset.key("uki-production"),
        "db": bench.keyset.key("uefi-db"),
        "manifest CA": ca,
        "uki-cross": KeyPair(ca.cert_path.with_name(CROSS), ca.key_path, None),
        "nobody": None,
    }


@pytest.fixture(scope="module")
def signed(bench: Bench, pairs: Pairs, tmp_path_factory: pytest.TempPathFactory) -> VerityLayer:
    """A layer with programs, and a module by each signer."""
    return signing.modules(bench, pairs, tmp_path_factory.mktemp("signed"), STACKS)


@pytest.fixture(scope="module")
def kernels(bench: Bench, pairs: Pairs, tmp_path_factory: pytest.TempPathFactory) -> VerityLayer:
    """A layer with a kernel by each signer."""
    return signing.kernels(bench, pairs, tmp_path_factory.mktemp("kernels"))


@pytest.mark.attack(
    "root",
    "loads a module that publisher, product or nobody signed, from a signed layer or memory",
    "EACCES",
)
@pytest.mark.attack(
    "root",
    "starts a kernel by kexec_file_load that publisher, product, firmware's db or nobody signed",
    "EPERM",
)
@pytest.mark.tool("sbattach")
def test_a_key_opens_layers_and_nothing_else(
    live: Guest, unlocked: Guest, pairs: Pairs, signed: VerityLayer, kernels: VerityLayer
) -> None:
    for guest, table, from_memory in ((unlocked, OUTSIDE, "taken"), (live, LOCKED, "EACCES")):
        with signing.opened(guest, signed, pairs["publisher"]):
            modules = signing.tried(guest, "module", pairs)
            memory = signing.tried(guest, "memory", ["publisher"])
        with signing.opened(guest, kernels, pairs["publisher"]):
            images = signing.tried(guest, "kernel", pairs)
        programs = signing.volumes(guest, signed, pairs)
        assert {name: (modules[name], images[name], programs[name]) for name in pairs} == table
        assert memory == {"publisher": from_memory}


@pytest.mark.attack(
    "image",
    "a program with an executable stack, in a layer that the publisher signs all the same",
    "**runs**, and only its own stack is code: the machine refuses none (docs/trust.md tells it)",
)
def test_who_asks_for_an_executable_stack_has_one(
    live: Guest, pairs: Pairs, signed: VerityLayer
) -> None:
    """Neither IPE nor MDWE is asked about it, so it is the publisher's tools that refuse. It is no
    READ_IMPLIES_EXEC: other data stays data. This test says what is so."""
    crash = 128 + signal.SIGSEGV
    unit = "systemd-run --quiet --wait -p MemoryDenyWriteExecute=yes -p LockPersonality=yes"
    with signing.opened(live, signed, pairs["publisher"]):
        for start, end in (("", crash), (unit, 255)):
            found = {name: live.sh(f"{start} /run/signed/{name}").status for name in STACKS}
            assert found == {"asks": selfwritten.ANSWER, "asks-elsewhere": end, "asks-not": end}
        live.must("cp /run/signed/asks /run/asks")
        assert live.sh("/run/asks").status == 126
        live.must("rm /run/asks")


# Device mapper is told what to show by root: OPEN is a signed volume, /run/other has other files.
OPEN = "veritysetup open {} --hash-offset={} --root-hash-signature=/run/sig {} over {} {}"
SHOWN = {
    "with other data": (OPEN, "", "/run/other", "", False),
    "ignoring that it differs": (OPEN, "--ignore-corruption", "/run/other", "", True),
    "checked once and changed then": (
        OPEN, "--check-at-most-once", "/run/layer",
        "cat /dev/mapper/over > /dev/null; dd if=/run/other of=/run/layer conv=notrunc status=none;"
        " sync; echo 3 > /proc/sys/vm/drop_caches; blockdev --flushbufs /dev/mapper/over", True,
    ),
    "as another target": (
        OPEN, "", "/run/layer", "dmsetup load over --table \"0 $size linear $loop 0\";"
        " dmsetup suspend over; dmsetup resume over", False,
    ),
    "as an error and then as another target": (
        OPEN, "", "/run/layer", "for table in error \"linear $loop 0\"; do dmsetup suspend over;"
        " dmsetup load over --table \"0 $size $table\"; dmsetup resume over; done", True,
    ),
}  # fmt: skip


@pytest.mark.attack(
    "root",
    "opens a signed volume over data of its own, three ways: dm-verity ignores that it differs, "
    "checks it once, or another target takes its place",
    "**runs**: not closed (docs/trust.md tells it)",
)
@pytest.mark.parametrize("way", SHOWN)
def test_root_tells_device_mapper_what_a_signed_volume_shows(
    live: Guest, bench: Bench, signed: VerityLayer, tmp_path: Path, way: str
) -> None:
    """The kernel counts a device as signed whose root hash is, whatever it shows. This test says
    what is so: who closes it changes SHOWN."""
    (tmp_path / "tree").mkdir()
    shutil.copy("/usr/bin/busybox", tmp_path / "tree")
    other = make_layer(tmp_path / "tree", tmp_path / "other", epoch=1_767_225_600)
    data = other.path.read_bytes()[: other.data_size]
    assert len(data) <= signed.data_size
    live.put(data + bytes(signed.data_size - len(data)), "/run/other")
    live.put(signed.path.read_bytes(), "/run/layer")
    root_hash = RootHash(signed.root_hash)
    live.put(FileSigner.open(bench.project.pair).sign_root_hash(root_hash), "/run/sig")
    command, options, source, then, runs = SHOWN[way]
    shown = command.format(options, signed.data_size, source, "/run/layer", root_hash)
    said = live.sh(
        f"{shown}; loop=$(losetup -f --show /run/other); "
        "size=$(blockdev --getsz /dev/mapper/over);"
        f" {then or 'true'}; mkdir -p /run/over; "
        "mount -t squashfs -o ro /dev/mapper/over /run/over;"
        " /run/over/busybox echo RAN; umount /run/over; dmsetup remove --retry over; "
        "losetup -d $loop"
    ).output
    assert ("RAN" in said.split()) == runs, said
    live.must("rm -f /run/other /run/layer /run/sig")


@pytest.mark.attack(
    "root",
    "loads Debian's own module from a copy",
    "EACCES",
)
def test_modules_come_from_the_volume_that_the_policy_names(live: Guest) -> None:
    live.must("modprobe dummy && grep -q '^dummy ' /proc/modules && modprobe -r dummy")
    # The same file, signed by Debian, from anywhere else.
    live.must("cp $(modinfo -n dummy) /run/dummy.ko.xz")
    assert live.sh("insmod /run/dummy.ko.xz").status != 0
    live.must("! grep -q '^dummy ' /proc/modules; rm /run/dummy.ko.xz")


@pytest.mark.attack(
    "root",
    "loads an IPE policy that allows all, signed by publisher, product or db key",
    "EPERM",
)
@pytest.mark.parametrize("name", ["publisher", "uki", "db", "uki-cross"])
def test_a_policy_of_any_key_needs_the_capability(
    live: Guest, unlocked: Guest, pairs: Pairs, name: str
) -> None:
    pair = pairs[name]
    assert pair is not None
    text = f"policy_name=by-{name} policy_version=1.0.0\nDEFAULT action=ALLOW\n"
    policy = FileSigner.open(pair).sign_content(text.encode())
    for guest, taken in ((live, False), (unlocked, True)):
        guest.put(policy, "/run/policy.p7s")
        assert bool(guest.sh(f"cat /run/policy.p7s > {IPE}/new_policy")) == taken
        assert bool(guest.sh(f"test -d {IPE}/policies/by-{name}")) == taken
