"""The shared libraries that a program needs, from its dynamic section (``readelf``)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from machineos.core.run import run
from machineos.errors import MissingError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_NEEDED = re.compile(r"\(NEEDED\)\s+Shared library: \[([^\]/]+)\]")
_INTERPRETER = re.compile(r"Requesting program interpreter: (/[^\]]+)\]")
_FOLDERS = ("usr/lib64", "usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib")
_TIMEOUT = 30.0


def parse_needed(text: str) -> tuple[str, ...]:
    """Return the names in ``readelf -d -l`` output, the interpreter's base name included."""
    names = _NEEDED.findall(text)
    names += [path.rsplit("/", 1)[-1] for path in _INTERPRETER.findall(text)]
    return tuple(dict.fromkeys(names))


def closure(root: Path, programs: Iterable[Path]) -> tuple[Path, ...]:
    """Return every library that ``programs`` need, transitively, as paths inside ``root``.

    Raises: MissingError for a library that is nowhere in the tree, ToolError.
    """
    found: dict[str, Path] = {}
    todo = list(programs)
    while todo:
        result = run(["readelf", "-dlW", str(todo.pop())], timeout=_TIMEOUT)
        for name in parse_needed(result.text):
            if name not in found:
                found[name] = _find(root, name)
                todo.append(found[name])
    return tuple(sorted(found.values()))


def _find(root: Path, name: str) -> Path:
    for folder in _FOLDERS:
        path = root / folder / name
        if path.exists():
            return path
    raise MissingError(f"{name} is needed but not in {root}")
