"""Mutants that change nothing: a short list, each with its reason, that must fit the sources.

``equivalent.toml`` beside this module holds them. An entry names a mutant by what a person sees of
it, not by a number, and must fit exactly one; at most ``MOST`` are allowed.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mutants.operators import Mutant

MOST = 5


@dataclass(frozen=True)
class Equivalent:
    """One mutant that no test can notice, and why."""

    path: str
    function: str
    operator: str
    before: str
    after: str
    reason: str

    def fits(self, mutant: Mutant) -> bool:
        """Whether this is that mutant."""
        return (self.path, self.function, self.operator, self.before, self.after) == (
            mutant.path, mutant.function, mutant.operator, mutant.before, mutant.after,
        )  # fmt: skip


def read(text: str) -> tuple[Equivalent, ...]:
    """Return the entries of the list. Raises: ValueError (too many, without reason, other keys)."""
    document = tomllib.loads(text)
    if set(document) - {"equivalent"}:
        raise ValueError("the list of equivalent mutants holds something else")
    try:
        entries = tuple(Equivalent(**entry) for entry in document.get("equivalent", ()))
    except TypeError as error:
        raise ValueError(f"an entry has other keys than a mutant: {error}") from error
    if len(entries) > MOST:
        raise ValueError(f"{len(entries)} mutants are called equivalent; at most {MOST} may be")
    if not all(entry.reason.strip() for entry in entries):
        raise ValueError("an equivalent mutant has no reason")
    return entries


def stale(entries: Iterable[Equivalent], universe: Iterable[Mutant]) -> list[Equivalent]:
    """Return the entries that fit no mutant, or several."""
    listed = list(universe)
    return [entry for entry in entries if sum(map(entry.fits, listed)) != 1]
