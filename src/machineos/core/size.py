"""Sizes in bytes, written the way people write them: ``8GiB``, ``30G``, ``512M``, ``4096``."""

from __future__ import annotations

import re

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}
_DECIMAL = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_SHAPE = re.compile(r"([0-9]{1,18})(?:([KMGTP])(iB|B|i)?|B)?")
_LIMIT = 1 << 62


def parse_size(text: str) -> int:
    """Return bytes. ``G``, ``Gi`` and ``GiB`` are binary, ``GB`` is decimal. Raises: ValueError."""
    match = _SHAPE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text[:40]!r} is not a size (examples: 8GiB, 512M, 4096)")
    number, unit, suffix = int(match[1]), match[2] or "", match[3] or ""
    size = number * (_DECIMAL[unit] if unit and suffix == "B" else _UNITS[unit])
    if size > _LIMIT:
        raise ValueError(f"{text[:40]!r} is too large")
    return size


def show_size(size: int) -> str:
    """Return ``size`` bytes for people, in binary units with one decimal."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")
