"""Which driver a device wants: the kernel's aliases against the patterns of the drivers; and what a
module is told. Pure."""

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
    ordered, have = sorted(present), set(loaded)
    for pattern, names in table:
        if not have.issuperset(names) and any(served(pattern, ordered)):
            return names
    return None


def module_options(command_line: str, file_name: str) -> str:
    """Return what a kernel command line says to a module (``NAME.parameter=value``).

    The kernel hands it to modules that are built in; to others whoever loads them does, as kmod.
    """
    name = file_name.removesuffix(".ko").replace("-", "_")
    words = (word.partition(".") for word in command_line.split())
    return " ".join(rest for owner, _, rest in words if owner.replace("-", "_") == name and rest)


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
