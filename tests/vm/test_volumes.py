"""Volumes of services in an appliance: locked, authenticated below, and there after a reboot."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from machineos.core.secret import Secret
from machineos.errors import VerificationError
from machineos.state.volumes.sealed import HEADERS_SIZE, KIND, machine_key, open_token, read_token
from vm.appliance import TEMPLATE, Bench
from vm.guest import Boot, Guest

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


@pytest.mark.attack(
    "root",
    "takes what is sealed in a volume's header, to open the disk with it later",
    "it opens with the key of the machine's TPM only",
)
def test_what_lies_in_the_header_opens_nothing(live: Guest) -> None:
    area = bytes.fromhex(
        live.must(f"head -c {HEADERS_SIZE} {VOLUME} | od -An -v -tx1 | tr -d ' \\n'")
    )
    token = read_token(area, what="registry")
    with pytest.raises(VerificationError):
        open_token(machine_key(Secret(bytes(32))), token.sealed, "registry")
    names = live.must("cat /proc/keys").splitlines()
    assert not [line for line in names if "machineos:" in line and "user" in line]


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
