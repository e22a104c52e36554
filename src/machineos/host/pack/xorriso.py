"""Bootable ISO 9660 images by ``xorriso``: El Torito for optical drives, GPT for USB sticks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from machineos.core.command import Command

if TYPE_CHECKING:
    from pathlib import Path

_TIMEOUT = 600.0


def make_command(tree: Path, esp: Path, output: Path, *, label: str, epoch: int) -> Command:
    """Return the command that writes ``tree`` as ``output``; ``esp`` is the EFI boot image."""
    when = datetime.fromtimestamp(epoch, UTC).strftime("%Y%m%d%H%M%S00")
    argv = (
        "xorriso", "-as", "mkisofs", "-quiet", "-iso-level", "3", "-R", "-V", label,
        f"--modification-date={when}", "--set_all_file_dates", when,
        "-append_partition", "2", "0xef", str(esp), "-appended_part_as_gpt",
        "-e", "--interval:appended_partition_2:all::", "-no-emul-boot",
        "-o", str(output), str(tree),
    )  # fmt: skip
    return Command(argv, _TIMEOUT, env=(("SOURCE_DATE_EPOCH", str(epoch)),))
