"""Making the file systems of an installed machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.core.run import run

if TYPE_CHECKING:
    from pathlib import Path

_TIMEOUT = 600.0


def make_ext4(device: Path, *, label: str) -> None:
    """Make an ext4 file system that checks its own metadata. Raises: ToolError."""
    run(
        ["mkfs.ext4", "-q", "-F", "-L", label, "-m", "0", "-O", "metadata_csum,64bit",
         "-E", "lazy_itable_init=1,lazy_journal_init=1", str(device)],
        timeout=_TIMEOUT,
    )  # fmt: skip


def make_fat32(device: Path, *, label: str) -> None:
    """Make a FAT32 file system, as UEFI wants it. Raises: ToolError."""
    run(["mkfs.vfat", "-F32", "-n", label, str(device)], timeout=_TIMEOUT)
