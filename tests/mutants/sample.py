"""The sample: drawn from a seed, the same on every machine that has the same sources."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from mutants.operators import OPERATORS, Mutant, is_valid, mutants
from mutants.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


def everything(top: Path, paths: Iterable[str]) -> tuple[list[Mutant], dict[str, Source]]:
    """Return all mutants of the modules ``paths``, and their sources."""
    sources = {path: Source(path, (top / path).read_bytes()) for path in paths}
    return [one for source in sources.values() for one in mutants(source)], sources


def draw(
    universe: Iterable[Mutant], sources: dict[str, Source], *, seed: int, count: int
) -> list[Mutant]:
    """Return ``count`` mutants, or all there are, in the order of the sources.

    The kinds take turns, so that the many constants do not crowd out the few calls that matter.
    """
    dice = random.Random(seed)
    piles: list[Iterator[Mutant]] = []
    listed = list(universe)
    for operator in OPERATORS:
        found = [one for one in listed if one.operator == operator]
        dice.shuffle(found)
        piles.append(iter(found))
    drawn: list[Mutant] = []
    while piles and len(drawn) < count:
        pile = piles.pop(0)
        mutant = next((one for one in pile if is_valid(one, sources[one.path])), None)
        if mutant is not None:
            drawn.append(mutant)
            piles.append(pile)
    return sorted(drawn, key=lambda one: (one.path, one.start, one.end, one.new))
