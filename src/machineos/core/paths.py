"""Paths as values: names that come from elsewhere, joined so that they cannot lead elsewhere.

Touches no file system: what a name leads to there is for whoever opens it (``core.files``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_LONGEST = 255


def safe_join(root: Path, name: str) -> Path:
    """Return ``root/name`` for a single path component. Raises: ValueError for anything else."""
    if not name or name in {".", ".."} or "/" in name or "\0" in name or len(name) > _LONGEST:
        raise ValueError(f"{name[:80]!r} is not a file name")
    return root / name
