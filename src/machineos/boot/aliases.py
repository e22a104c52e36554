"""Which driver a device wants: the kernel's aliases against the patterns of the drivers; and what a
module is told. Pure."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    Table = Sequence[tuple[str, tuple[str, ...]]]

_SPECIAL = re.compile(r"[*?\[]")
# A device that the firmware's tables describe lies on this bus with an alias of another.
_DESCRIBED = {"acpi": ("acpi", "platform")}


def next_driver(
    table: Table, present: Iterable[str], loaded: Collection[str]
) -> tuple[str, ...] | None:
    """Return the modules of the first driver of ``table`` (alias pattern, modules) that a device
    wants and that is not loaded yet; None when there is none.

    ``present`` are the aliases (kernel docs, driver-api/driver-model) of the devices.
    """
    found, have = tuple(present), set(loaded)
    starts = {alias[:length] for alias in found for length in range(len(alias) + 1)}
    for pattern, names in table:
        # What a pattern has before its first special character decides nearly always.
        start = _SPECIAL.split(pattern, maxsplit=1)[0]
        if start in starts and not have.issuperset(names) and served(pattern, found):
            return names
    return None


def buses(*tables: Table) -> frozenset[str]:
    """Return the buses (folders of ``/sys/bus``) whose devices these drivers can serve."""
    kinds = {pattern.partition(":")[0] for table in tables for pattern, _ in table}
    return frozenset(bus for kind in kinds for bus in _DESCRIBED.get(kind, (kind,)))


def module_options(command_line: str, file_name: str) -> str:
    """Return what a kernel command line says to a module (``NAME.parameter=value``).

    The kernel hands it to modules that are built in; to others whoever loads them does, as kmod.
    """
    name = file_name.removesuffix(".ko").replace("-", "_")
    words = (word.partition(".") for word in command_line.split())
    return " ".join(rest for owner, _, rest in words if owner.replace("-", "_") == name and rest)


def served(pattern: str, present: Iterable[str]) -> bool:
    """Return whether a driver with this pattern serves one of the aliases ``present``."""
    return any(fnmatch.fnmatchcase(alias, pattern) for alias in present)
