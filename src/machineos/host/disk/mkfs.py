"""Making the file systems of an installed machine: the commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.core.command import Command

if TYPE_CHECKING:
    from pathlib import Path

_TIMEOUT = 600.0


def ext4_command(device: Path, *, label: str) -> Command:
    """Return the command that makes an ext4 file system which checks its own metadata."""
    argv = (
        "mkfs.ext4", "-q", "-F", "-L", label, "-m", "0", "-O", "metadata_csum,64bit",
        "-E", "lazy_itable_init=1,lazy_journal_init=1", str(device),
    )  # fmt: skip
    return Command(argv, _TIMEOUT)


def fat32_command(device: Path, *, label: str) -> Command:
    """Return the command that makes a FAT32 file system, as UEFI wants it."""
    return Command(("mkfs.vfat", "-F32", "-n", label, str(device)), _TIMEOUT)
