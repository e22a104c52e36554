"""Shut the TPM for everything after us, and see whether it is shut by trying to unseal again."""

from __future__ import annotations

from machineos.boot.facts import (
    ANCHORS,
    BOOTS,
    DEPARTURE,
    DOOR_CLOSED,
    DRIVERS,
    POLICIES,
    UNSEALED,
    Facts,
    Phase,
)
from machineos.boot.steps import CloseDoor, CloseSealed, OpenSealed, ReadSealed, Say
from machineos.core.steps import Talk, ask
from machineos.errors import BootError, MachineOSError
from machineos.trust.seal.layout import Index


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        yield from ask(CloseDoor())
        try:
            yield from ask(OpenSealed(facts[POLICIES], facts[ANCHORS].policy_key))
            yield from ask(ReadSealed(Index.CONFIGURATION_KEY))
        except MachineOSError:
            yield from ask(CloseSealed())
            yield from ask(Say("the TPM gives out no secret any more"))
            return Facts()
        raise BootError("the TPM still gives out its secrets after its door was closed")


PHASE = _Phase(
    "door",
    modes=BOOTS,
    needs=frozenset({ANCHORS, POLICIES, DRIVERS, UNSEALED, DEPARTURE}),
    gives=frozenset({DOOR_CLOSED}),
)
