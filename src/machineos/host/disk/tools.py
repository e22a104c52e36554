"""The tools for disks, run: tables, file systems, LUKS, LVM.

Invariant: what these functions wrote is on the disk, past its own cache, when they return. sfdisk,
mkfs.ext4, mkfs.vfat and cryptsetup see to that themselves (seen with strace); LVM is not known to.
Shared with the initrd: standard library and core only.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from machineos.core.run import perform, run
from machineos.host.disk import luks, mkfs, sfdisk

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from machineos.core.files import Sync
    from machineos.core.secret import Secret
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


def format_volume(volume: luks.LuksVolume, passphrase: Secret, *, uuid: str) -> None:
    """Format a device. Raises: ToolError."""
    command = luks.format_command(volume, uuid=uuid)
    run(command.argv, input=passphrase.reveal(), timeout=command.timeout)


def open_volume(volume: luks.LuksVolume, passphrase: Secret, *, header: Path | None = None) -> Path:
    """Open a device and return the mapped node. Raises: VerificationError."""
    command = luks.open_command(volume, header=header)
    result = run(command.argv, input=passphrase.reveal(), timeout=command.timeout, check=False)
    return luks.check_opened(volume, result)


def close_volume(name: str) -> None:
    """Close a volume; one that is not open is no error. Raises: ToolError."""
    if (luks.MAPPER / name).exists():
        perform(luks.close_command(name))


def read_header(device: Path) -> bytes:
    """Return the header area of LUKS: both binary headers, the JSON areas, the key slots."""
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(luks.HEADER_SIZE)


def flush(device: Path, *, sync: Sync = os.fsync) -> None:
    """Wait until everything written to ``device`` is past the disk's own cache."""
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)
