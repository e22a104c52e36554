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
OPEN = "/dev/mapper/machine-volume-registry"
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
    sealed = read_token(area, what="registry")
    with pytest.raises(VerificationError):
        open_token(machine_key(Secret(bytes(32))), sealed, "registry")
    names = live.must("cat /proc/keys").splitlines()
    assert not [line for line in names if "machineos:" in line and "user" in line]


def test_what_was_written_is_there_after_a_reboot(boot: Boot, machine: str) -> None:
    with boot(machine) as guest:
        guest.wake()
        guest.must(f"echo kept > {DATA}/volume/kept && sync")
        guest.must("systemctl --no-block poweroff")
        guest.vm.wait_exit(300)
    with boot(machine) as guest:
        guest.wake()
        guest.wait_until(f"grep -q kept {DATA}/volume/kept", 120)
