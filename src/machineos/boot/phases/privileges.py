"""Give up what could switch the rule on execution off: no later process can have it."""

from __future__ import annotations

from machineos.boot.facts import BOOTS, LOCKED, UNPRIVILEGED, Facts, Phase
from machineos.boot.steps import DropMacAdmin
from machineos.core.steps import Talk, ask


class _Phase(Phase, frozen=True):
    def talk(self, _facts: Facts) -> Talk[Facts]:
        yield from ask(DropMacAdmin())
        return Facts()


PHASE = _Phase(
    "privileges",
    modes=BOOTS,
    needs=frozenset({LOCKED}),
    gives=frozenset({UNPRIVILEGED}),
)
