"""Real firmware and media whose boot image is larger than El Torito can count: as a CD and as a
stick. What it starts is systemd-boot, which offers what is left to do.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from machineos.build.media.medium import build_medium
from machineos.vm.model import BootIndex, Config, Disk, Machine
from machineos.vm.provider import StartOptions
from machineos.vm.providers.qemu import QemuProvider
from machineos.vm.running import RunningMachine
from machineos.vm.store import MachineStore
from vm.appliance import CLOCK
from vm.guest import BOOT

PROGRAM = Path("/usr/lib/systemd/boot/efi/systemd-bootx64.efi")
SAYS = "Reboot Into Firmware Interface"
MIB = 1 << 20
FIRST = BootIndex(0)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: unix sockets allow 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="mm-"))
    yield path
    shutil.rmtree(path)


def starts(folder: Path, medium: Path, *, optical: bool) -> None:
    """Boot ``medium`` and wait until the program on it has begun."""
    store = MachineStore(folder / "c", folder / "s", folder / "r")
    stick = Disk(file=str(medium), format="raw", attach="usb", read_only=True, bootindex=FIRST)
    config = Config(
        name="media",
        disks=() if optical else (stick,),
        cdrom=str(medium) if optical else "",
        boot="cdrom" if optical else "",
        tpm=False,
        secure_boot=False,
        memory=512,
    )
    provider = QemuProvider(store, CLOCK)
    provider.define(Machine(name="media", config=config))
    try:
        options = StartOptions(no_reboot=True)
        with RunningMachine(provider, "media", CLOCK, options=options) as machine:
            machine.wait_console(SAYS, BOOT)
    finally:
        provider.delete("media")


@pytest.mark.parametrize("optical", [True, False], ids=["cd", "stick"])
@pytest.mark.parametrize("size", [8 * MIB, 70 * MIB], ids=["small", "large"])
def test_firmware_starts_what_is_on_it(folder: Path, *, size: int, optical: bool) -> None:
    filler, medium = folder / "filler", folder / "medium.iso"
    filler.write_bytes(b"\1" * size)
    build_medium(PROGRAM, filler, medium, epoch=1_700_000_000)
    starts(folder, medium, optical=optical)
