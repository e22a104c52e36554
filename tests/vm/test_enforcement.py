"""The kernel of a running appliance refuses what nobody signed, also to root (issue 2, part 10)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from machineos.build.recipe.filesystem import make_layer
from machineos.build.recipe.veritylayer import VerityLayer
from machineos.core.run import run
from machineos.core.word import RootHash
from machineos.trust.keys.keyset import key_pair
from machineos.trust.keys.signer import FileSigner
from vm.appliance import Bench
from vm.guest import Done, Guest
from waiting import PATIENCE

# Root takes noexec from where it wants to execute, so that this is not what refuses; in a mount
# namespace of its own, which nobody else sees. A script is tried as a file of that folder, with an
# interpreter from there and with a signed one; and as a signed file, whose interpreter is a file
# of the folder that was put in the place of Python.
EXECUTING = r"""
import ctypes, errno, json, os, shutil, subprocess, sys
folder = "FOLDER"
def mount(*words): subprocess.run(["mount", *words], check=True)
def tried(*argv):
    try: done = subprocess.run(argv, capture_output=True, text=True)
    except OSError as error: return errno.errorcode[error.errno]
    return "RAN" if done.returncode == 0 else done.stderr.strip().rpartition(": ")[2]
def mapped(path):
    try: ctypes.CDLL(path)
    except OSError as error: return str(error).rpartition(": ")[2]
    return "RAN"
def script(name, interpreter):
    with open(f"{folder}/{name}", "w") as file: file.write(f"#!{interpreter}\n")
    os.chmod(f"{folder}/{name}", 0o755)
    return f"{folder}/{name}"
assert tried("/usr/bin/true") == "RAN"
os.unshare(os.CLONE_NEWNS)
mount("--make-rprivate", "/")
os.makedirs(folder, exist_ok=True)
if OWN: mount("-t", "tmpfs", "-o", "exec,mode=755", "own", folder)
place = subprocess.check_output(["findmnt", "-n", "-o", "TARGET", "-T", folder], text=True).strip()
mount("-o", "remount,bind,exec", place)
assert not os.statvfs(folder).f_flag & os.ST_NOEXEC
mine = shutil.copy("/usr/bin/true", f"{folder}/mine")
library = shutil.copy("/usr/lib/x86_64-linux-gnu/libz.so.1", f"{folder}/library")
scripts = script("script", mine), script("signed-interpreter", "/usr/bin/true")
found = {
    "program": tried(mine),
    "script": tried(scripts[0]),
    "script of a signed interpreter": tried(scripts[1]),
    "loader": tried("/lib64/ld-linux-x86-64.so.2", mine),
    "library": mapped(library),
}
mount("--bind", mine, os.path.realpath("/usr/bin/python3"))
found["interpreter of a signed script"] = tried("/usr/bin/mosctl", "--none")
for path in (mine, library, *scripts): os.unlink(path)
print(json.dumps(found))
"""
MAPPING = "failed to map segment from shared object"
REFUSED = {
    "program": "EACCES",
    "script": "EACCES",
    "script of a signed interpreter": "EACCES",
    "interpreter of a signed script": "EACCES",
    "loader": MAPPING,
    "library": MAPPING,
}


def executed(guest: Guest, folder: str, *, own: bool = False) -> dict[str, str]:
    """Return how each way to execute a file of a folder ends, or of a tmpfs of root's ``own``."""
    code = EXECUTING.replace("FOLDER", folder).replace("OWN", str(own))
    found: dict[str, str] = json.loads(guest.python(code).splitlines()[-1])
    return found


@pytest.mark.attack(
    "root",
    "executes a program copied to a tmpfs, an overlay, a data volume, without noexec",
    "EACCES, through the loader too",
)
@pytest.mark.attack(
    "root",
    "executes a script from there, or a signed one whose interpreter it put there",
    "EACCES",
)
@pytest.mark.parametrize(
    "folder", ["/run", "/tmp", "/dev/shm", "/var", "/etc", "/var/lib/machineos/data/registry"]
)
def test_a_copied_program_does_not_run(live: Guest, unlocked: Guest, folder: str) -> None:
    """The last of them is ext4 in a volume."""
    assert executed(unlocked, folder) == dict.fromkeys(REFUSED, "RAN")
    assert executed(live, folder) == REFUSED


@pytest.mark.attack(
    "root",
    "mounts a tmpfs of its own without noexec and executes from it",
    "EACCES, also for a library",
)
def test_noexec_is_not_what_stops_it(live: Guest, unlocked: Guest) -> None:
    assert executed(unlocked, "/run/own", own=True) == dict.fromkeys(REFUSED, "RAN")
    assert executed(live, "/run/own", own=True) == REFUSED


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> VerityLayer:
    """A small volume that nobody has signed, with a program in it."""
    folder = tmp_path_factory.mktemp("layer")
    tree = folder / "tree"
    tree.mkdir()
    shutil.copy("/usr/bin/busybox", tree / "busybox")
    return make_layer(tree, folder / "layer", epoch=1_767_225_600)


@pytest.mark.attack(
    "root",
    "opens a volume that a stranger signed, the device's key, or the publisher for another one",
    "the kernel refuses it",
)
def test_only_a_layer_of_the_publisher_opens(
    live: Guest, bench: Bench, layer: VerityLayer, tmp_path: Path
) -> None:
    live.put(layer.path.read_bytes(), "/run/layer")
    publisher = FileSigner.open(bench.project.pair)
    (live_name, key, cert) = ("stranger", tmp_path / "key.pem", tmp_path / "cert.pem")
    run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj",
         f"/CN={live_name}", "-keyout", key, "-out", cert], timeout=PATIENCE)  # fmt: skip
    (tmp_path / "privkey.pem").write_bytes(key.read_bytes())
    stranger = FileSigner.open(key_pair(tmp_path))
    sudi = FileSigner.open(bench.project.list_sudis()[0].pair)
    refused = "required key not available|key was rejected|not available|rejected"
    for who, signer in (("stranger", stranger), ("device", sudi)):
        live.put(signer.sign_root_hash(RootHash(layer.root_hash)), "/run/sig")
        done = opening(live, layer, "--root-hash-signature=/run/sig")
        assert done.status != 0, who
        assert live.sh("test -e /dev/mapper/probe").status != 0
        assert any(words in done.output.lower() for words in refused.split("|")), done.output
    other = layer.root_hash[:-1] + ("0" if layer.root_hash[-1] != "0" else "1")
    live.put(publisher.sign_root_hash(RootHash(other)), "/run/sig")
    assert opening(live, layer, "--root-hash-signature=/run/sig").status != 0
    live.put(publisher.sign_root_hash(RootHash(layer.root_hash)), "/run/sig")
    good = opening(live, layer, "--root-hash-signature=/run/sig")
    assert good.status == 0, good.output
    live.must("mkdir -p /run/mnt && mount -t squashfs -o ro /dev/mapper/probe /run/mnt")
    assert live.must("/run/mnt/busybox echo runs") == "runs"
    live.must("umount /run/mnt && veritysetup close probe")


@pytest.mark.attack(
    "root",
    "opens a changed volume with the good signature",
    "refused at the first changed block",
)
def test_our_own_way_of_opening_says_why_it_refuses(
    live: Guest, bench: Bench, layer: VerityLayer
) -> None:
    """What initrd and mosd use: by ioctl, without veritysetup."""
    data = layer.path.read_bytes()
    live.put(data, "/run/layer")
    tail = layer.data_size + 4096 + 16  # in the hash tree, behind its superblock
    live.put(data[:tail] + bytes([data[tail] ^ 1]) + data[tail + 1 :], "/run/changed")
    publisher = FileSigner.open(bench.project.pair)
    device = FileSigner.open(bench.project.list_sudis()[0].pair)
    for name, signer in (("good", publisher), ("device", device)):
        live.put(signer.sign_root_hash(RootHash(layer.root_hash)), f"/run/{name}.p7s")
    lines = live.python(OPENING.format(digest=layer.root_hash, offset=layer.data_size)).splitlines()
    assert "no key that it trusts made it" in lines[0]
    assert "does not match its root hash" in lines[1] or "cannot be opened under" in lines[1]
    assert "cannot be opened under" in lines[2] or "no key" in lines[2]
    assert lines[3:] == ["None", "True True", "another root hash", "runs", "None"]


OPENING = r"""
import subprocess
from msgspec.structs import replace
from pathlib import Path
from machineos.errors import MachineOSError
from machineos.host.kernel import devicemapper, dmverity, superblock as verity
from machineos.host.kernel.mount import Flag, mount, unmount
offset = {offset}
with open("/run/layer", "rb") as file:
    file.seek(offset)
    superblock = verity.parse_superblock(file.read(4096), offset=offset, what="layer")
def volume(image, signature):
    return dmverity.Volume(Path(image), "machineos-probe", "{digest}", superblock,
                           Path(signature).read_bytes())
def attempt(wanted):
    try:
        print(dmverity.open_volume(wanted))
    except MachineOSError as error:
        print(error)
good = volume("/run/layer", "/run/good.p7s")
attempt(volume("/run/layer", "/run/device.p7s"))
attempt(volume("/run/changed", "/run/good.p7s"))
attempt(replace(good, signature=b"junk"))
def present():
    with devicemapper.opened() as mapper:
        return mapper.find("machineos-probe")
print(present())
node = dmverity.open_volume(good)
print(node == present(), node == dmverity.open_volume(good))
try:
    dmverity.open_volume(replace(good, root_hash="ff" * 32))
except MachineOSError as error:
    print(str(error).partition(" open with ")[2])
where = Path("/run/mnt")
where.mkdir(exist_ok=True)
mount(node, where, "squashfs", Flag.RDONLY)
print(subprocess.check_output([where / "busybox", "echo", "runs"], text=True).strip())
unmount(where)
dmverity.close_volume("machineos-probe")
print(present())
"""


@pytest.mark.attack(
    "root",
    "maps a volume without a signature and executes from it",
    "EACCES",
)
def test_an_unsigned_layer_cannot_be_executed_from(live: Guest, layer: VerityLayer) -> None:
    live.put(layer.path.read_bytes(), "/run/layer")
    done = opening(live, layer, "")
    if done:  # the kernel may map it, as it maps any disk; it is IPE that refuses to run it
        live.must("mkdir -p /run/mnt && mount -t squashfs -o ro /dev/mapper/probe /run/mnt")
        assert live.sh("/run/mnt/busybox echo runs").status == 126
        live.must("umount /run/mnt && veritysetup close probe")
    else:
        assert live.sh("test -e /dev/mapper/probe").status != 0


def opening(guest: Guest, layer: VerityLayer, signature: str) -> Done:
    return guest.sh(
        f"veritysetup open --hash-offset={layer.data_size} {signature} /run/layer probe "
        f"/run/layer {layer.root_hash} 2>&1"
    )


@pytest.mark.attack(
    "root",
    "loads an unsigned or changed kernel module, or a copy of a signed one",
    "refused",
)
def test_an_unsigned_module_is_refused(live: Guest) -> None:
    code = r"""
import ctypes, glob, os, subprocess
path = glob.glob("/usr/lib/modules/*/kernel/**/dummy.ko*", recursive=True)[0]
data = open(path, "rb").read()
if path.endswith(".xz"):
    import lzma; data = lzma.decompress(data)
cut = data[:data.rindex(b"~Module signature appended~")]
sig = int.from_bytes(cut[-4:], "big")
libc = ctypes.CDLL(None, use_errno=True)
def load(blob, name):
    if libc.syscall(175, blob, len(blob), b"") == 0:  # init_module
        return name + " loaded"
    return name + " " + os.strerror(ctypes.get_errno())
print(load(cut[:-12 - sig], "unsigned"))
bad = bytearray(data); bad[len(cut) // 3] ^= 1
print(load(bytes(bad), "altered"))
open("/run/copy.ko", "wb").write(data)
fd = os.open("/run/copy.ko", os.O_RDONLY)
print("copied", "loaded" if libc.syscall(313, fd, b"", 0) == 0 else os.strerror(ctypes.get_errno()))
"""
    lines = live.python(code).splitlines()
    assert len(lines) == 3
    assert not [line for line in lines if line.endswith("loaded")], lines


@pytest.mark.attack(
    "root",
    "starts another kernel by kexec_load; reads /dev/mem and /dev/port",
    "EPERM; there is no /dev/port",
)
def test_kexec_and_raw_memory_are_refused(live: Guest) -> None:
    """There is no control that succeeds: under Secure Boot the kernel refuses both by itself."""
    code = r"""
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
print(libc.syscall(246, 0, 0, 0, 0), errno.errorcode[ctypes.get_errno()])  # kexec_load
for path in ("/dev/mem", "/dev/kmem", "/dev/port"):
    try:
        with open(path, "rb") as f:
            f.read(16)
        print("read", path)
    except OSError as e:
        print("no", path, errno.errorcode[e.errno])
"""
    assert live.python(code).splitlines() == [
        "-1 EPERM", "no /dev/mem EPERM", "no /dev/kmem ENOENT", "no /dev/port ENOENT",
    ]  # fmt: skip


@pytest.mark.attack(
    "root",
    "reads keys out of /proc/kcore",
    "EPERM",
)
def test_kernel_memory_cannot_be_read(live: Guest, unlocked: Guest) -> None:
    """The key of an open volume is in it. Without a word on its command line the kernel protects
    its integrity, because of Secure Boot, and not what it knows."""
    code = """
import errno
try:
    with open("/proc/kcore", "rb") as file: print(file.read(4))
except OSError as error: print(errno.errorcode[error.errno])
"""
    assert unlocked.python(code) == repr(b"\x7fELF")
    assert live.python(code) == "EPERM"
