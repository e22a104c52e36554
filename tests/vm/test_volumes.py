"""Volumes of services in an appliance: locked, authenticated below, and there after a reboot."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from machineos.state.volumes.sealed import KIND
from vm.appliance import TEMPLATE, Bench
from vm.guest import BOOT, Boot, Guest

VOLUME = "/dev/machine-data/registry"
OPEN = "/run/machineos/volumes/machine-volume-registry"
DATA = "/var/lib/machineos/data/registry"


@pytest.fixture(scope="module")
def machine(bench: Bench) -> Iterator[str]:
    """A machine of its own, which boots twice."""
    name = bench.clone("volumes", TEMPLATE)
    yield name
    bench.discard(name)


def test_a_volume_is_locked_and_authenticated_below(live: Guest) -> None:
    table = live.must("dmsetup table").splitlines()
    kinds = {line.split(":")[0]: line.split()[3] for line in table}
    assert kinds["machine-data-integrity"] == "integrity"
    assert kinds["machine--data-pool-tpool"] == "thin-pool"
    assert kinds["machine--data-registry"] == "thin"
    assert kinds["machine-volume-registry"] == "crypt"
    (crypt,) = (line for line in table if line.startswith("machine-volume-registry:"))
    assert ":64:logon:" in crypt
    assert live.must("cryptsetup status machine-volume-registry").count("LUKS2") == 1
    assert OPEN in live.must(f"findmnt -n -o SOURCE {DATA}")
    dump = json.loads(live.must(f"cryptsetup luksDump --dump-json-metadata {VOLUME}"))
    assert [token["type"] for token in dump["tokens"].values()] == [KIND]


# Everything that root of a running machine can read and that is of a key's size, and all that our
# own code makes of one, is tried as the private key of the token, as passphrase and as volume key.
# A second header, locked with just these, is the control.
TRYING = r"""
import itertools, json, os, subprocess, uuid
from pathlib import Path
from machineos.core.run import perform
from machineos.core.secret import Secret
from machineos.errors import VerificationError
from machineos.host.disk import cryptsetup, luks
from machineos.state.volumes import header, sealed
from machineos.trust.wrap import hpke

public = bytes.fromhex(json.loads(Path("/run/machineos/boot.json").read_text())["volumes_key"])
table = subprocess.check_output(["dmsetup", "table", "--showkeys"], text=True)
(below,) = (word.rpartition(":")[2] for line in table.splitlines() for word in line.split()
            if line.startswith("machine-data-integrity:") and word.startswith("internal_hash:"))
known = {"public": public, "below": bytes.fromhex(below)}
assert {len(key) for key in known.values()} == {32}
makers = {
    "itself": lambda key: key,
    "as a storage key": sealed.machine_key,
    "as entropy": hpke.derive_private_key,
    "as a key of integrity": sealed.integrity_key,
}
keys = {f"{name} {how}": make(Secret(key)) if how != "itself" else Secret(key)
        for name, key in known.items() for how, make in makers.items()}

def cryptsetup_takes(words, data):
    done = subprocess.run(["cryptsetup", "open", "--test-passphrase", *words], input=data,
                          capture_output=True)
    assert done.returncode in {0, 2}, done.stderr  # opens, or has no such key
    return done.returncode == 0

def opening(device, name):
    area = cryptsetup.read_header(Path(device), sealed.HEADERS_SIZE)
    token = sealed.read_token(area, what=name)
    for said, key in keys.items():
        try: yield f"token: {said}", bool(sealed.open_token(key, token.sealed, name))
        except VerificationError: pass
        for form, data in (("", key.reveal()), (" in digits", header.hexadecimal(key).reveal()),
                           (" derived", header.passphrase(key).reveal())):
            yield f"passphrase: {said}{form}", cryptsetup_takes(["--key-file=-", device], data)
    for pair in itertools.product(known, repeat=2):
        Path("/run/trying.key").write_bytes(b"".join(known[name] for name in pair))
        words = ["--volume-key-file=/run/trying.key", device]
        yield f"volume key: {' '.join(pair)}", cryptsetup_takes(words, b"")

own = Path("/run/trying.luks")
with own.open("wb") as file: file.truncate(luks.HEADER_SIZE + (1 << 20))
whole = Secret(known["public"] + known["below"])
cryptsetup.format_keyed(luks.LuksVolume(own, "own"), keys["below itself"], whole,
                        uuid=str(uuid.uuid4()))
ours = hpke.public_key(keys["below as a storage key"])
perform(luks.token_command(own, sealed.make_token(ours, whole, "own", random=os.urandom)))
print(json.dumps({name: [how for how, opens in opening(device, name) if opens]
                  for name, device in (("registry", "VOLUME"), ("own", str(own)))}))
for path in (own, Path("/run/trying.key")): path.unlink()
"""


@pytest.mark.attack(
    "root",
    "opens a volume's header with what it has: the key of the blocks below, the public key, and "
    "what can be made of them, as private key, passphrase and volume key",
    "none of them opens: what is sealed is for the key of the machine's TPM only",
)
def test_what_lies_in_the_header_opens_nothing(live: Guest) -> None:
    opened = json.loads(live.python(TRYING.replace("VOLUME", VOLUME), BOOT).splitlines()[-1])
    assert opened == {
        "registry": [],
        "own": [
            "passphrase: below itself", "token: below as a storage key",
            "volume key: public below",
        ],
    }  # fmt: skip
    names = live.must("cat /proc/keys").splitlines()
    assert not [line for line in names if "machineos:" in line and "user" in line]


# What a later version does to a volume that is in use: the key is named, and never seen.
GROW = """
import ctypes, subprocess
from machineos.host.kernel import devicemapper
from machineos.host.kernel.crypttable import key_of
from machineos.host.kernel.devicemapper import Table

call = ctypes.CDLL(None, use_errno=True).syscall
assert call(250, 8, -4, -3) == 0, "the session has the user keyring"
with devicemapper.opened() as mapper:
    old = mapper.table("machine-volume-registry")
key = key_of(old.parameters)
print("key:", key)
serial = call(250, 10, -4, b"logon", key.encode(), 0)
assert serial > 0
print("read:", call(250, 11, serial, ctypes.create_string_buffer(64), 64), ctypes.get_errno())
subprocess.run(["lvm", "lvextend", "-L+64m", "machine-data/registry"], check=True)
table = f"0 {(old.size + (64 << 20)) // 512} crypt {old.parameters}"
for words in (["load"], ["suspend"], ["resume"]):
    subprocess.run(["dmsetup", *words, "machine-volume-registry"], check=True,
                   input=table.encode() if words == ["load"] else None)
subprocess.run(["resize2fs", "OPEN"], check=True)
"""


def test_a_volume_grows_by_the_name_of_its_key(live: Guest) -> None:
    """While it is mounted; the key is root's to use and nobody's to read."""
    live.must(f"echo before > {DATA}/volume/grown")
    size = int(live.must(f"findmnt -n -b -o SIZE {DATA}"))
    said = live.python(GROW.replace("OPEN", OPEN), 300)
    assert "key: machineos:machine-volume-registry" in said  # its first name, +new, or its own
    assert "read: -1 95\n" in said  # EOPNOTSUPP: no key of this type is read
    assert int(live.must(f"findmnt -n -b -o SIZE {DATA}")) > size + (48 << 20)
    live.must("echo 3 > /proc/sys/vm/drop_caches")
    assert live.must(f"cat {DATA}/volume/grown") == "before"


def test_what_is_deleted_goes_back_to_the_pool(live: Guest) -> None:
    def used() -> int:
        live.must("sync")
        status = live.must("dmsetup status machine--data-pool-tpool").split()
        return int(status[5].split("/")[0])

    before = used()
    live.must(f"head -c 67108864 /dev/urandom > {DATA}/volume/large")
    full = used()
    live.must(f"rm {DATA}/volume/large")
    live.wait_until("sync; sleep 1; true")
    assert full > before
    assert used() < (before + full) // 2


# Finds the block of a file through the three layers, turns one bit of it where it lies on the disk,
# and reads it again: the same block, by the same path.
FLIP = """
import json, os, subprocess
from machineos.host.disk import blockdev

def blocks(path, size, at=0):
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    while at < size and (piece := os.pread(descriptor, 1 << 20, at)):
        yield at, piece
        at += len(piece)
    os.close(descriptor)

def find(path, wanted, size):
    for at, piece in blocks(path, size):
        if (offset := piece.find(wanted)) >= 0:
            return at + offset
    raise SystemExit(f"{path} has no such block")

pattern = (b"machineos was here" * 300)[:4096]
with open("DATA/volume/pattern", "wb") as file:
    file.write(pattern)
    file.flush()
    os.fsync(file.fileno())
os.sync()
inner = find("OPEN", pattern, 4 << 30)
dump = subprocess.run(["cryptsetup", "luksDump", "--dump-json-metadata", "VOLUME"], check=True,
                      capture_output=True).stdout
outer = inner + int(json.loads(dump)["segments"]["0"]["offset"])
(cipher,) = [piece[:4096] for _, piece in blocks("VOLUME", outer + 4096, outer)]
assert cipher != pattern
(disk,) = [str(part.device) for part in blockdev.partitions() if part.label == "machine-data"]

def read():
    open("/proc/sys/vm/drop_caches", "w").write("3")
    try:
        with open("DATA/volume/pattern", "rb") as file:
            return "same" if file.read() == pattern else "other"
    except OSError as error:
        return error.strerror

print("before:", read())
for verb in ("suspend", "resume"):  # so that nothing of it is in the journal only
    subprocess.run(["dmsetup", verb, "machine-data-integrity"], check=True)
place = find(disk, cipher, 1 << 40)
raw = os.open(disk, os.O_WRONLY | os.O_SYNC)
os.pwrite(raw, bytes([cipher[7] ^ 1]), place + 7)
print("after:", read())
os.pwrite(raw, cipher[7:8], place + 7)
print("restored:", read())
"""


def test_what_was_written_is_there_after_a_reboot(boot: Boot, machine: str) -> None:
    with boot(machine) as guest:
        guest.wake()
        guest.wait_until(f"test -d {DATA}/volume", 120)
        guest.must(f"echo kept > {DATA}/volume/kept && sync")
        guest.terminal.type("systemctl poweroff\n")  # the shell may be gone before it answers
        guest.vm.wait_exit(300)
    with boot(machine) as guest:
        guest.wake()
        guest.wait_until(f"grep -q kept {DATA}/volume/kept", 120)


@pytest.mark.attack(
    "disk",
    "turns one bit of a service's file, which is encrypted, where it lies on the disk",
    "the file is not read: input/output error, and with the bit turned back it is",
)
def test_a_changed_block_is_not_read(live: Guest) -> None:
    code = FLIP.replace("DATA", DATA).replace("OPEN", OPEN).replace("VOLUME", VOLUME)
    seen = dict(line.split(": ") for line in live.python(code, 900).splitlines())
    assert seen == {"before": "same", "after": "Input/output error", "restored": "same"}
