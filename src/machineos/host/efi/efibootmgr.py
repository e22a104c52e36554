"""Boot entries in the firmware's variables, through ``efibootmgr``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.core.run import run

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


def list_entries() -> tuple[BootEntry, ...]:
    """Return the boot entries of this machine. Raises: ToolError."""
    return parse_entries(run(["efibootmgr"], timeout=_TIMEOUT).text)


def create_entry(disk: Path, partition: int, *, description: str, loader: str) -> None:
    """Add a boot entry in front of the boot order. Raises: ToolError."""
    run(
        ["efibootmgr", "--quiet", "--create", "--disk", str(disk), "--part", str(partition),
         "--label", description, "--loader", loader],
        timeout=_TIMEOUT,
    )  # fmt: skip


def delete_entry(entry: BootEntry) -> None:
    """Remove a boot entry. Raises: ToolError."""
    run(["efibootmgr", "--quiet", "--bootnum", entry.number, "--delete-bootnum"], timeout=_TIMEOUT)
