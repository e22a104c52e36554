"""The shared libraries that a program needs, from its dynamic section (``readelf``)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from machineos.core.command import Command

if TYPE_CHECKING:
    from pathlib import Path

_NEEDED = re.compile(r"\(NEEDED\)\s+Shared library: \[([^\]/]+)\]")
_INTERPRETER = re.compile(r"Requesting program interpreter: (/[^\]]+)\]")
FOLDERS = ("usr/lib64", "usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib")
_TIMEOUT = 30.0


def parse_needed(text: str) -> tuple[str, ...]:
    """Return the names in ``readelf -d -l`` output, the interpreter's base name included."""
    names = _NEEDED.findall(text)
    names += [path.rsplit("/", 1)[-1] for path in _INTERPRETER.findall(text)]
    return tuple(dict.fromkeys(names))


def needed_command(path: Path) -> Command:
    """Return the command whose output ``parse_needed`` reads."""
    return Command(("readelf", "-dlW", str(path)), _TIMEOUT)
