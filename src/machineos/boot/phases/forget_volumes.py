"""Overwrite the key that volumes are sealed to, once those are open that this boot needs."""

from __future__ import annotations

from machineos.boot.facts import (
    RUNS,
    SEALING_FORGOTTEN,
    SEALING_KEY,
    VOLUMES,
    Facts,
    Phase,
)
from machineos.boot.steps import ForgetSecret
from machineos.core.steps import Talk, ask


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        yield from ask(ForgetSecret(facts[SEALING_KEY]))
        return Facts()


PHASE = _Phase(
    "forget volumes",
    modes=RUNS,
    needs=frozenset({SEALING_KEY, VOLUMES}),
    gives=frozenset({SEALING_FORGOTTEN}),
)
