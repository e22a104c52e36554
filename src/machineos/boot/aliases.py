"""Which driver a device wants: the kernel's aliases against the patterns of the drivers. Pure."""

from __future__ import annotations

import fnmatch
from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    Table = Sequence[tuple[str, tuple[str, ...]]]


def next_driver(
    table: Table, present: Iterable[str], loaded: Collection[str]
) -> tuple[str, ...] | None:
    """Return the modules of the first driver of ``table`` (alias pattern, modules) that a device
    wants and that is not loaded yet; None when there is none.

    ``present`` are the aliases (kernel docs, driver-api/driver-model) of the devices.
    """
    ordered = sorted(present)
    for pattern, names in table:
        if not set(names) <= set(loaded) and any(served(pattern, ordered)):
            return names
    return None


def served(pattern: str, present: Sequence[str]) -> Iterator[str]:
    """Yield those of the sorted aliases ``present`` that a driver with this pattern serves.

    What a pattern has before its first special character decides nearly always, and is looked up.
    """
    start = pattern[: min((pattern + special).index(special) for special in "*?[")]
    for alias in present[bisect_left(present, start) :]:
        if not alias.startswith(start):
            return
        if fnmatch.fnmatchcase(alias, pattern):
            yield alias
