"""Boot entries in the firmware's variables: the commands of ``efibootmgr``, and its output."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.core.command import Command

if TYPE_CHECKING:
    from pathlib import Path

_TIMEOUT = 60.0
_ENTRY = re.compile(r"^Boot([0-9A-F]{4})([* ]) (.+?)(?:\t|$)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class BootEntry:
    """A boot entry: its number in hex, whether it is active, its description."""

    number: str
    active: bool
    description: str


def parse_entries(text: str) -> tuple[BootEntry, ...]:
    """Read the output of ``efibootmgr``."""
    return tuple(BootEntry(n, mark == "*", name) for n, mark, name in _ENTRY.findall(text))


def list_command() -> Command:
    """Return the command that lists the boot entries; ``parse_entries`` reads it."""
    return Command(("efibootmgr",), _TIMEOUT)


def create_command(disk: Path, partition: int, *, description: str, loader: str) -> Command:
    """Return the command that adds a boot entry in front of the boot order."""
    argv = (
        "efibootmgr", "--quiet", "--create", "--disk", str(disk), "--part", str(partition),
        "--label", description, "--loader", loader,
    )  # fmt: skip
    return Command(argv, _TIMEOUT)


def delete_command(number: str) -> Command:
    """Return the command that removes the boot entry ``number`` (hex)."""
    argv = ("efibootmgr", "--quiet", "--bootnum", number, "--delete-bootnum")
    return Command(argv, _TIMEOUT)
