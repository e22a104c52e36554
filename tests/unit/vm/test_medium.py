"""What a launch reads out of a guest's console."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import pytest

from fakes.machines import Guest, MemoryProvider, Script
from machineos.errors import MachineError
from machineos.vm import medium as launch
from machineos.vm.medium import Hardware, Medium, run_medium
from machineos.vm.model import Endpoint, Machine, Nic, Port
from machineos.vm.paths import MachinePaths
from machineos.vm.provider import StartOptions
from machineos.vm.qemu.placement import is_import

PANIC = "[    3.9] Kernel panic - not syncing: Fatal exception in interrupt\r\n"
OURS = "[    9.1] machineos: initrd for install, kernel 6.12\r\n"


@pytest.mark.parametrize(
    ("console", "expected"),
    [
        (PANIC, True),
        ("BdsDxe: starting Boot0001\r\n" + PANIC, True),
        (OURS + PANIC, False),  # our code ran: what it did is not known, so no second try
        ("Kernel panic - not syncing: Fatal exception in interrupt", True),  # its first words
        (OURS, False),
        ("", False),
        ("[ 1.0] Kernel panic - not syncing: No working init found.\r\n", False),
    ],
)
def test_only_a_crash_before_our_code_is_tried_again(console: str, expected: bool) -> None:
    assert launch.crashed_early(console) is expected


@pytest.mark.parametrize(
    ("console", "expected"),
    [
        (OURS + "[ 9.2] machineos: BOOT FAILED: no TPM\r\n", "no TPM"),
        ("mosctl[3]: mosctl: the disk is too small\r\n", "the disk is too small"),
        ("a BOOT FAILED: first\r\nb BOOT FAILED: last\r\n", "last"),
        ("Verification failed: (0x1A) Security Violation\r\n", "the firmware refused"),
        (
            "BdsDxe: failed to load Boot0001: Access Denied\r\n",
            "the firmware refused the boot image: it is not signed by this keyset",
        ),
        ("one\r\ntwo\r\n\r\nthree\r\nfour\r\n", "two / three / four"),
        ("", "it wrote nothing on its console"),
        ("one line\r\n", "one line"),
    ],
)
def test_the_reason_is_the_guests_own(console: str, expected: str) -> None:
    found = launch.reason(console)
    assert found == expected or found.startswith(f"{expected} the boot image")


def test_success_is_what_the_guest_said() -> None:
    said = "[   16.93] machineos: provisioned successfully: SN0001 of product x\r\n"
    assert re.search(launch.PROVISIONED, said)
    assert not re.search(launch.INSTALLED, said)


def test_the_disk_with_the_identity_can_be_erased_and_is_copied_nowhere(tmp_path: Path) -> None:
    """A writable disk without a size would be imported: a second copy of the private key."""
    medium = launch.provision_medium(tmp_path / "p.iso", tmp_path / "sudi.vfat", 20 << 20)
    small = launch.define("vm1", HARDWARE, medium=medium).config.disks[1]
    assert (small.file, small.frozen, small.size.bytes) == (str(medium.disks[0]), False, 20 << 20)
    paths = MachinePaths(*(tmp_path / name for name in ("m.yaml", "state", "run", "lock")))
    assert not is_import(small, paths)


# --- a whole boot, on machines in memory


class Ticking:
    """Time that passes when somebody waits."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        raise AssertionError("no wall time here")

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


HARDWARE = Hardware(
    "SN1", Path("/keys/vars.fd"), disk=8 << 30, ports=Nic(ports=(Port(Endpoint(1), Endpoint(2)),))
)
IDENTITY = launch.provision_medium(Path("/m/provision.iso"), Path("/m/sudi.vfat"), 20 << 20)
GOOD = ("[ 9.1] machineos: initrd", "[ 9.3] machineos: provisioned successfully: SN1 of product x")


def booted(*runs: Guest, medium: Medium = IDENTITY) -> tuple[MemoryProvider, list[str]]:
    """Boot the medium on guests that do this, one after the other; return what was said."""
    left = list(runs)
    provider = MemoryProvider(lambda _machine: left.pop(0))
    said: list[str] = []
    run_medium(provider, "vm1", HARDWARE, medium, Ticking(), watch=said.append)
    return provider, said


def crashed() -> Script:
    return Script([PANIC.strip()])


def test_a_boot_is_over_when_the_guest_has_said_so_and_is_off() -> None:
    provider, said = booted(Script(GOOD))
    assert said == ["initrd", "provisioned successfully: SN1 of product x"]
    assert provider.state("vm1").status == "stopped"
    ((machine, options),) = provider.started
    assert options == StartOptions(no_reboot=True)
    assert machine == launch.define("vm1", HARDWARE, medium=IDENTITY)


def test_the_very_first_line_is_heard_too() -> None:
    _, said = booted(Script(("machineos: initrd", *GOOD)))
    assert said[0] == "initrd"
    assert len(said) == 3


def test_a_definition_that_is_there_is_replaced() -> None:
    provider = MemoryProvider(lambda _machine: Script(GOOD))
    provider.define(Machine(name="vm1"))
    run_medium(provider, "vm1", HARDWARE, IDENTITY, Ticking())
    assert provider.machine("vm1").config.cdrom == "/m/provision.iso"


def test_a_crash_before_our_code_is_tried_again_twice() -> None:
    provider, said = booted(crashed(), crashed(), Script(GOOD))
    assert len(provider.started) == 3
    again = "the kernel crashed before our code ran, as it does under emulation; trying again"
    assert said == [again, again, "initrd", "provisioned successfully: SN1 of product x"]
    with pytest.raises(MachineError, match=r"provision\.iso did not succeed: .*Kernel panic"):
        booted(crashed(), crashed(), crashed(), Script(GOOD))


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["[ 1] machineos: BOOT FAILED: no TPM"], "no TPM"),
        (["[ 1] machineos: initrd", PANIC.strip()], "Kernel panic"),
        ([], "it wrote nothing on its console"),
        (["[ 1] machineos install: installed successfully: x"], "installed successfully"),
    ],
)
def test_what_did_not_succeed_says_why_and_where_to_look(lines: Sequence[str], reason: str) -> None:
    with pytest.raises(MachineError) as caught:
        booted(Script(lines))
    assert caught.value.message.startswith("machine vm1: provision.iso did not succeed: ")
    assert reason in caught.value.message
    assert caught.value.hint == "the console is in /memory/vm1/console.log"


def test_a_guest_that_hangs_is_ended_after_its_time() -> None:
    medium = Medium(Path("/m/install.iso"), (), launch.INSTALLED, 5.0)
    hanging = Script(["[ 1] machineos install: writing"], hangs=True)
    provider = MemoryProvider(lambda _machine: hanging)
    clock = Ticking()
    with pytest.raises(MachineError) as caught:
        run_medium(provider, "vm1", HARDWARE, medium, clock)
    assert caught.value.message == "machine vm1: install.iso has not ended after 5 s"
    assert caught.value.hint == "the console is in /memory/vm1/console.log"
    assert 5.0 < clock.seconds < 6.0
    assert not provider.state("vm1").active


def test_a_medium_is_booted_with_its_small_disks_and_no_open_port() -> None:
    machine = launch.define("vm1", HARDWARE, medium=IDENTITY)
    config = machine.config
    assert (config.boot, config.cdrom) == ("cdrom", "/m/provision.iso")
    own, small = config.disks
    assert (own.file, own.size.bytes) == ("vm1.qcow2", 8 << 30)
    assert (small.file, small.format, small.read_only) == ("/m/sudi.vfat", "raw", False)
    url = launch.define("vm1", HARDWARE, medium=launch.install_medium(Path("/i"), Path("/m/url")))
    assert [(disk.file, disk.frozen) for disk in url.config.disks[1:]] == [("/m/url", True)]
    assert config.nics == (Nic(),)
    assert config.smbios is not None
    assert config.smbios.serial == "SN1"
    assert config.uefi_vars == "/keys/vars.fd"
    assert machine.description == "machineOS appliance SN1"


def test_the_final_machine_boots_its_disk_and_has_its_ports() -> None:
    config = launch.define("vm1", HARDWARE, medium=None).config
    assert (config.boot, config.cdrom) == ("hdd", "")
    assert [disk.file for disk in config.disks] == ["vm1.qcow2"]
    assert config.nics == (HARDWARE.ports,)


def test_what_the_two_boots_wait_for() -> None:
    assert (
        Medium(
            Path("/m/provision.iso"),
            (Path("/m/sudi.vfat"),),
            launch.PROVISIONED,
            launch.PROVISION_TIMEOUT,
            writable=20 << 20,
        )
        == IDENTITY
    )
    image = Path("/m/install.iso")
    assert launch.install_medium(image, None) == Medium(image, (), launch.INSTALLED, 1800.0)
    assert launch.install_medium(image, Path("/u")).disks == (Path("/u"),)
