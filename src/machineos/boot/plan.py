"""Which phases a boot has, in which order. Pure.

Phases are found, not listed: each file of ``phases`` holds one. Their order follows from what they
need and give; where that leaves a choice, the name decides, so that it is always the same. The
runner refuses what cannot be put in order.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from machineos.boot import phases
from machineos.boot.facts import GIVEN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from machineos.boot.facts import Phase
    from machineos.document.between.bootsettings import Mode


def plan(mode: Mode) -> tuple[Phase, ...]:
    """Return the phases of a mode in the order in which they run."""
    return ordered(phase for phase in found() if mode in phase.modes)


def found() -> tuple[Phase, ...]:
    """Return every phase there is, by name of its file."""
    names = sorted(module.name for module in pkgutil.iter_modules(phases.__path__))
    return tuple(importlib.import_module(f"{phases.__name__}.{name}").PHASE for name in names)


def ordered(unordered: Iterable[Phase]) -> tuple[Phase, ...]:
    """Return the phases so that each comes after what it needs, ties by name; those for which that
    cannot be done come last, and the runner refuses them."""
    left = sorted(unordered, key=lambda phase: phase.name)
    known = set(GIVEN)
    result: list[Phase] = []
    while left:
        chosen = next((phase for phase in left if phase.needs <= known), left[0])
        left.remove(chosen)
        result.append(chosen)
        known |= chosen.gives
    return tuple(result)
