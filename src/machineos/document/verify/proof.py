"""How a value says that it was verified: only who has the proof can make one.

Invariant: a value whose class asks its ``Proof`` for itself was made by the function that holds it.
Python hides nothing for good; this is against the mistake, which no test would notice, of building
by hand what only a check may give.
"""

from __future__ import annotations

from machineos.errors import OrderError


class Proof:
    """Held by the one function ``maker`` that makes values of the type ``made``."""

    __slots__ = ("_made", "_maker")

    def __init__(self, made: str, maker: str) -> None:
        self._made = made
        self._maker = maker

    def require(self, shown: Proof | None) -> None:
        """Raise OrderError unless ``shown`` is this very proof."""
        if shown is not self:
            raise OrderError(
                f"a {self._made} is made by {self._maker} alone, which checks it first"
            )
