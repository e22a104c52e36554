"""Block devices as sysfs shows them, read; what they are decides ``device``.

Shared with the initrd: standard library only.
"""

from __future__ import annotations

import os
from pathlib import Path

from machineos.host.disk.device import (
    FAT_SIZE,
    ISO_OFFSET,
    ISO_SIZE,
    Disk,
    Entry,
    Partition,
    disk_of,
    label_of,
    partition_of,
)

SYSFS = Path("/sys/class/block")


def partitions(sysfs: Path = SYSFS) -> tuple[Partition, ...]:
    """Return every partition with a GPT name, sorted by disk."""
    found = (partition_of(_read(entry)) for entry in sysfs.iterdir())
    return tuple(sorted(item for item in found if item is not None))


def disks(sysfs: Path = SYSFS) -> tuple[Disk, ...]:
    """Return every real disk (no loop, device-mapper, memory or optical device), sorted."""
    found = (disk_of(_read(entry)) for entry in sysfs.iterdir())
    return tuple(sorted(item for item in found if item is not None))


def optical(sysfs: Path = SYSFS) -> tuple[Path, ...]:
    """Return the device nodes of optical drives, sorted."""
    return tuple(
        sorted(Path("/dev") / entry.name for entry in sysfs.iterdir() if entry.name[:2] == "sr")
    )


def volume_label(device: Path) -> str:
    """Return the label of the FAT or ISO 9660 file system on ``device``, empty for anything else
    and for what cannot be read."""
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # an empty drive cannot be opened
        return ""
    try:
        sector = os.pread(descriptor, FAT_SIZE, 0)
        volume = os.pread(descriptor, ISO_SIZE, ISO_OFFSET)
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    return label_of(sector, volume)


def _read(entry: Path) -> Entry:
    names = ("uevent", "size", "ro", "removable", "hidden")
    return Entry(entry.resolve(), *(_attribute(entry / name) for name in names))


def _attribute(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:  # the device went away between listing and reading
        return ""
