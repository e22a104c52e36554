"""Shut the TPM for everything after us, and see whether it is shut by asking for secrets again."""

from __future__ import annotations

from machineos.boot.facts import (
    BOOTS,
    DEPARTURE,
    DOOR_CLOSED,
    DRIVERS,
    FIRST_DOOR,
    FORGOTTEN,
    SEALED,
    UNSEALED,
    Facts,
    Phase,
)
from machineos.boot.phases.first_door import check_shut
from machineos.boot.steps import CloseDoor, CloseSealed, Say
from machineos.core.steps import Talk, ask
from machineos.trust.seal.layout import Index


class _Phase(Phase, frozen=True):
    def talk(self, _facts: Facts) -> Talk[Facts]:
        yield from ask(CloseDoor("second"))
        yield from check_shut(Index.CONFIGURATION_KEY, "second")
        yield from check_shut(Index.SUDI_CERT, "second")
        yield from ask(CloseSealed())
        yield from ask(Say("the TPM gives out no secret any more"))
        return Facts()


PHASE = _Phase(
    "second door",
    modes=BOOTS,
    needs=frozenset({DRIVERS, SEALED, FIRST_DOOR, UNSEALED, FORGOTTEN, DEPARTURE}),
    gives=frozenset({DOOR_CLOSED}),
)
