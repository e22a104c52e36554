"""Disks and partitions as values, and how they are recognised. Touches nothing.

Invariant: a partition is named together with the disk it is on, so that a second disk with the same
partition names is a second candidate and never mixed with the first.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

SECTOR = 512
FAT_SIZE = 512
ISO_OFFSET, ISO_SIZE = 0x8000, 72  # the first volume descriptor, up to its volume identifier


class Partition(msgspec.Struct, frozen=True, order=True):
    """One partition: its kernel name, its disk's kernel name, its GPT name."""

    disk: str
    name: str
    label: str

    @property
    def device(self) -> Path:
        """The device node."""
        return Path("/dev") / self.name


class Disk(msgspec.Struct, frozen=True, order=True):
    """A whole disk. ``size`` in bytes."""

    name: str
    size: int
    read_only: bool
    removable: bool

    @property
    def device(self) -> Path:
        """The device node."""
        return Path("/dev") / self.name


class Entry(msgspec.Struct, frozen=True):
    """What sysfs says about one block device: ``path`` is where its link leads, ``uevent`` and the
    others are the content of the files of that name, empty where there is none."""

    path: Path
    uevent: str
    size: str
    ro: str
    removable: str
    hidden: str

    @property
    def fields(self) -> dict[str, str]:
        """The fields of ``uevent``."""
        return dict(line.split("=", 1) for line in self.uevent.splitlines() if "=" in line)


def partition_of(entry: Entry) -> Partition | None:
    """Return the partition, None for what is none or has no GPT name."""
    fields = entry.fields
    if fields.get("DEVTYPE") != "partition" or not fields.get("PARTNAME"):
        return None
    return Partition(entry.path.parent.name, entry.path.name, fields["PARTNAME"])


def disk_of(entry: Entry) -> Disk | None:
    """Return the disk, None for what is no real one (loop, device-mapper, memory, optical)."""
    # Not all of devices/virtual: NVMe disks with several paths are in virtual/nvme-subsystem, and
    # each single path to one is a hidden disk without a device node.
    if entry.fields.get("DEVTYPE") != "disk" or "/virtual/block/" in str(entry.path):
        return None
    if entry.path.name.startswith(("sr", "fd")) or entry.hidden == "1":
        return None
    size = int(entry.size or 0) * SECTOR
    return Disk(entry.path.name, size, entry.ro == "1", entry.removable == "1")


def label_of(sector: bytes, volume: bytes) -> str:
    """Return the label of a FAT or ISO 9660 file system, empty for anything else.

    ``sector`` is the first one, ``volume`` the ``ISO_SIZE`` bytes at ``ISO_OFFSET``. Only a few
    fixed bytes are looked at; the kernel's parsers see nothing yet.
    """
    if volume[1:6] == b"CD001":
        return volume[40:72].decode("ascii", "replace").strip()
    if sector[510:512] == b"\x55\xaa":
        for kind, label in ((0x52, 0x47), (0x36, 0x2B)):
            if sector[kind : kind + 3] == b"FAT":
                return sector[label : label + 11].decode("ascii", "replace").strip()
    return ""
