"""GPT partition tables, as ``sfdisk`` scripts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from machineos.core.command import Command

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
_TIMEOUT = 120.0


class PartitionSpec(msgspec.Struct, frozen=True):
    """One partition: GPT name, type GUID, size in bytes (0: the rest of the disk)."""

    label: str
    kind: str
    size: int


def script(partitions: Sequence[PartitionSpec]) -> str:
    """Return the sfdisk script for a new table with these partitions, aligned to 1 MiB."""
    lines = ["label: gpt", "first-lba: 2048"]
    for partition in partitions:
        size = f"size={partition.size // 1024}KiB, " if partition.size else ""
        lines.append(f'{size}type={partition.kind}, name="{partition.label}"')
    return "\n".join(lines) + "\n"


def table_command(device: Path, partitions: Sequence[PartitionSpec]) -> Command:
    """Return the command that replaces the partition table of ``device`` and forgets what was on
    it. sfdisk waits for the disk itself before it ends."""
    argv = ("sfdisk", "--quiet", "--wipe", "always", "--wipe-partitions", "always", str(device))
    return Command(argv, _TIMEOUT, input=script(partitions).encode())
