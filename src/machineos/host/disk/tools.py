"""The tools for disks, run: tables, file systems, LVM. ``cryptsetup`` has those for LUKS.

Invariant: what these functions wrote is on the disk, past its own cache, when they return. sfdisk,
mkfs.ext4 and mkfs.vfat see to that themselves (seen with strace); LVM is not known to.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from machineos.core.run import perform
from machineos.host.disk import mkfs, sfdisk
from machineos.host.disk.lvm import parse_volumes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from machineos.core.files import Sync
    from machineos.host.disk.lvm import Group, LogicalVolume

FilesystemKind = Literal["ext4", "vfat"]


def write_table(device: Path, partitions: Sequence[sfdisk.PartitionSpec]) -> None:
    """Replace the partition table of ``device`` and forget what was on it. Raises: ToolError."""
    perform(sfdisk.table_command(device, partitions))


def make_filesystem(kind: FilesystemKind, device: Path, *, label: str) -> None:
    """Make a file system; what was on ``device`` is lost. Raises: ToolError."""
    make = mkfs.fat32_command if kind == "vfat" else mkfs.ext4_command
    perform(make(device, label=label))


def create_group(group: Group) -> None:
    """Make the group; what was on its device is lost. Raises: ToolError."""
    for command in group.create_commands():
        perform(command)
    flush(group.device)


def activate_group(group: Group) -> None:
    """Make the volumes of the group available; it takes a second. Raises: ToolError."""
    perform(group.activate_command())


def close_group(group: Group) -> None:
    """Take the volumes of the group away. Raises: ToolError (in use)."""
    perform(group.deactivate_command())


class VolumeGroup:
    """A volume group whose commands are run. Every call raises ToolError."""

    def __init__(self, group: Group) -> None:
        self._group = group

    @property
    def name(self) -> str:
        """Its name, which is that of its folder of devices."""
        return self._group.name

    def volumes(self) -> dict[str, LogicalVolume]:
        """Return the volumes by name. Raises: DocumentError, too."""
        return parse_volumes(perform(self._group.report_command()).stdout)

    def create_volume(self, name: str, size: int) -> None:
        """Make a volume of ``size`` bytes, rounded up to extents, that is not finished."""
        perform(self._group.create_volume_command(name, size))

    def finish_volume(self, name: str) -> None:
        """Say that a volume is whole."""
        perform(self._group.finish_volume_command(name))

    def rename_volume(self, name: str, new: str) -> None:
        """Rename a volume."""
        perform(self._group.rename_volume_command(name, new))

    def remove_volume(self, name: str) -> None:
        """Remove a volume and what is on it."""
        perform(self._group.remove_volume_command(name))


def flush(device: Path, *, sync: Sync = os.fsync) -> None:
    """Wait until everything written to ``device`` is past the disk's own cache."""
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)
