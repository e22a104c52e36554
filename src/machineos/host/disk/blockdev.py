"""Block devices as sysfs shows them. Shared with the initrd: standard library only.

Invariant: a partition is named together with the disk it is on, so that a second disk with the same
partition names is a second candidate and never mixed with the first.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

SYSFS = Path("/sys/class/block")


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """One partition: its kernel name, its disk's kernel name, its GPT name."""

    disk: str
    name: str
    label: str

    @property
    def device(self) -> Path:
        """The device node."""
        return Path("/dev") / self.name


@dataclass(frozen=True, slots=True, order=True)
class Disk:
    """A whole disk. ``size`` in bytes."""

    name: str
    size: int
    read_only: bool
    removable: bool

    @property
    def device(self) -> Path:
        """The device node."""
        return Path("/dev") / self.name


def partitions(sysfs: Path = SYSFS) -> tuple[Partition, ...]:
    """Return every partition with a GPT name, sorted by disk."""
    found = []
    for entry in sysfs.iterdir():
        fields = _uevent(entry)
        if fields.get("DEVTYPE") == "partition" and fields.get("PARTNAME"):
            disk = entry.resolve().parent.name
            found.append(Partition(disk, entry.name, fields["PARTNAME"]))
    return tuple(sorted(found))


def disks(sysfs: Path = SYSFS) -> tuple[Disk, ...]:
    """Return every real disk (no loop, device-mapper, memory or optical device), sorted."""
    found = []
    for entry in sysfs.iterdir():
        # Not all of devices/virtual: NVMe disks with several paths are in virtual/nvme-subsystem,
        # and each single path to one is a hidden disk without a device node.
        if _uevent(entry).get("DEVTYPE") != "disk" or "/virtual/block/" in str(entry.resolve()):
            continue
        if entry.name.startswith(("sr", "fd")) or _attribute(entry, "hidden") == "1":
            continue
        found.append(
            Disk(
                entry.name,
                int(_attribute(entry, "size") or 0) * 512,
                _attribute(entry, "ro") == "1",
                _attribute(entry, "removable") == "1",
            )
        )
    return tuple(sorted(found))


def optical(sysfs: Path = SYSFS) -> tuple[Path, ...]:
    """Return the device nodes of optical drives, sorted."""
    return tuple(
        sorted(Path("/dev") / entry.name for entry in sysfs.iterdir() if entry.name[:2] == "sr")
    )


def volume_label(device: Path) -> str:
    """Return the label of the FAT or ISO 9660 file system on ``device``, empty for anything else.

    Only a few fixed bytes are looked at; the kernel's parsers see nothing yet.
    """
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # an empty drive cannot be opened
        return ""
    try:
        sector = os.pread(descriptor, 512, 0)
        volume = os.pread(descriptor, 72, 0x8000)
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    if volume[1:6] == b"CD001":
        return volume[40:72].decode("ascii", "replace").strip()
    if sector[510:512] == b"\x55\xaa":
        for kind, label in ((0x52, 0x47), (0x36, 0x2B)):
            if sector[kind : kind + 3] == b"FAT":
                return sector[label : label + 11].decode("ascii", "replace").strip()
    return ""


def _uevent(entry: Path) -> dict[str, str]:
    text = _attribute(entry, "uevent")
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def _attribute(entry: Path, name: str) -> str:
    try:
        return (entry / name).read_text("utf-8", "replace").strip()
    except OSError:  # the device went away between listing and reading
        return ""
