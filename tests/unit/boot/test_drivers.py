"""Which drivers are wanted, and what happens when one cannot be loaded. Loading itself needs a
kernel that takes our modules: tests/vm."""

from __future__ import annotations

import fnmatch
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.boot.drivers import Drivers, aliases, served
from machineos.document.between.bootsettings import Settings
from machineos.errors import MissingError, ToolError

DISK = "virtio:d00000002v00001AF4"
PRESENT = sorted({DISK, "virtio:d00000004v00001AF4", "pci:v00008086d00002922sv00001AF4bc01sc06i01",
                  "acpi:PNP0303:", "scsi:t-0x00"})  # fmt: skip


def settings(*names: str, **changes: object) -> Settings:
    return Settings(mode="run", policy_version="0001", command_line="", kernel="", epoch=0,
                    modules=names, **changes)  # type: ignore[arg-type] # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("virtio:d00000002v*", [DISK]),
        ("virtio:d*", [DISK, "virtio:d00000004v00001AF4"]),
        ("virtio:d00000002v00001AF4", [DISK]),
        ("pci:v*d*sv*sd*bc01sc06i01*", []),
        ("pci:v*d*sv*bc01sc06i01*", ["pci:v00008086d00002922sv00001AF4bc01sc06i01"]),
        ("scsi:t-0x0[0-3]*", ["scsi:t-0x00"]),
        ("nvme:*", []),
        ("*PNP0303*", ["acpi:PNP0303:"]),
    ],
)
def test_what_a_driver_serves(pattern: str, expected: list[str]) -> None:
    assert list(served(pattern, PRESENT)) == expected


@given(
    st.text("abv:*?[]0", min_size=1, max_size=8),
    st.lists(st.text("abv:[]0", min_size=1, max_size=8), max_size=8),
)
def test_the_short_cut_changes_nothing(pattern: str, present: list[str]) -> None:
    whole = [alias for alias in sorted(present) if fnmatch.fnmatchcase(alias, pattern)]
    assert list(served(pattern, sorted(present))) == whole


def test_aliases_of_a_machine(tmp_path: Path) -> None:
    for bus, device, text in (("virtio", "virtio0", f"{DISK}\n"), ("pci", "0000:00:01.0", "pci:x")):
        folder = tmp_path / "bus" / bus / "devices" / device
        folder.mkdir(parents=True)
        (folder / "modalias").write_text(text)
    (tmp_path / "bus/platform/devices/none").mkdir(parents=True)
    (tmp_path / "bus/cpu").mkdir()
    assert aliases(tmp_path) == {DISK, "pci:x"}
    assert aliases(tmp_path / "nowhere") == set()


def test_a_module_that_is_not_there(tmp_path: Path) -> None:
    """The thread ends, and whoever waits is told."""
    with pytest.raises(MissingError, match=r"none\.ko"):
        Drivers(settings("none.ko"), tmp_path).wait()
    drivers = Drivers(settings(filesystems={"vfat": ("vfat.ko",)}), tmp_path, tmp_path)
    drivers.wait()
    with pytest.raises(MissingError, match=r"vfat\.ko"):
        drivers.filesystem("vfat")
    drivers.filesystem("ext4")


def machine(folder: Path, *present: str) -> Path:
    for number, alias in enumerate(present):
        path = folder / f"bus/any/devices/{number}/modalias"
        path.parent.mkdir(parents=True)
        path.write_text(alias)
    return folder


def test_only_what_a_device_here_wants(tmp_path: Path) -> None:
    """A file that is no module is refused by the kernel by name: so one sees which were tried."""
    sysfs = machine(tmp_path / "sys", DISK, "pci:x")
    for name in ("scsi", "ahci", "virtio", "nvme"):
        (tmp_path / f"{name}.ko").write_bytes(b"no module")
    wanted = (("nvme:*", ("nvme.ko",)), ("virtio:d00000002v*", ("virtio.ko",)),
              ("pci:x*", ("scsi.ko", "ahci.ko")))  # fmt: skip
    with pytest.raises(ToolError, match=r"virtio\.ko"):
        Drivers(settings(drivers=wanted), tmp_path, sysfs).wait()
    with pytest.raises(ToolError, match=r"scsi\.ko"):
        Drivers(settings(drivers=(wanted[0], wanted[2])), tmp_path, sysfs).wait()
    drivers = Drivers(settings(drivers=wanted[:1]), tmp_path, sysfs)
    drivers.wait()
    assert not drivers.more()
    drivers.all()


def test_nothing_to_load(tmp_path: Path) -> None:
    drivers = Drivers(settings(), tmp_path, tmp_path)
    drivers.wait()
    assert not drivers.more()
