"""Volumes of a booted appliance: open there, and of no use to whoever has the disk alone."""

from __future__ import annotations

import pytest

from vm.appliance import Bench
from vm.guest import Guest

OPENED = "ls /dev/mapper | grep ^volume- | grep -v -e -machine-log$"


@pytest.fixture(scope="module")
def rebooted(spoiled: Guest, bench: Bench) -> Guest:
    """The appliance once its initrd, and not mosd, has opened what there is."""
    spoiled.wait_until(OPENED)
    spoiled.reboot()
    spoiled.wait_answer()
    spoiled.wake()
    return spoiled


def test_volumes_and_the_log_are_open_after_a_reboot(rebooted: Guest) -> None:
    assert rebooted.must(OPENED)
    rebooted.must("test -b /dev/mapper/volume-machine-log")
    assert "stays closed" not in rebooted.must("dmesg")


def test_keys_of_volumes_are_the_kernels_alone(rebooted: Guest) -> None:
    """Also to root, who is shown the key of the integrity below, and no other."""
    tables = rebooted.must("dmsetup table --showkeys").splitlines()
    crypts = [line for line in tables if line.startswith("volume-")]
    assert crypts
    assert all(":64:logon:cryptsetup:" in line for line in crypts)
    assert any(line.startswith("machine-data-integrity:") for line in tables)


def test_what_the_disk_holds_does_not_open_a_volume(rebooted: Guest) -> None:
    """The token is there for everybody; it is of no use without the machine."""
    device = "/dev/machine-data/machine-log"
    token = rebooted.must(f"cryptsetup token export --token-id 0 {device}")
    assert "machineos-sealed" in token
    sealed = token.partition('"sealed":"')[2].partition('"')[0]
    assert len(sealed) == 2 * (32 + 32 + 16)
    opening = f"cryptsetup open --test-passphrase --key-file=- {device}"
    for guess in (sealed, "$(cat /config/storage.pub | od -An -v -tx1 | tr -d ' \\n')"):
        assert rebooted.sh(f'printf %s "{guess}" | {opening}').status == 2
