"""The tools for disks, run: tables, file systems, LVM. ``cryptsetup`` has those for LUKS.

Invariant: what these functions wrote is on the disk, past its own cache, when they return. sfdisk,
mkfs.ext4 and mkfs.vfat see to that themselves (seen with strace); LVM is not known to.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from machineos.core.run import perform
from machineos.host.disk import mkfs, sfdisk

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from machineos.core.files import Sync
    from machineos.host.disk.lvm import Group

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


def flush(device: Path, *, sync: Sync = os.fsync) -> None:
    """Wait until everything written to ``device`` is past the disk's own cache."""
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)
