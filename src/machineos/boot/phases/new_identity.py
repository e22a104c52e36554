"""Check the identity that this machine is to be given: of our CA, valid now, for this machine."""

from __future__ import annotations

from machineos.boot.facts import (
    ANCHORS,
    CLOCK,
    IDENTITY,
    NEW_IDENTITY,
    PROVISIONS,
    Facts,
    Phase,
)
from machineos.boot.phases.identity import DMI_SERIAL, check_machine
from machineos.boot.steps import ReadClock, ReadText
from machineos.core.steps import Talk, ask
from machineos.trust.verify.chain import verify_sudi


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        now = yield from ask(ReadClock())
        certificate = facts[NEW_IDENTITY].certificate
        identity = verify_sudi(certificate, ca_pem=facts[ANCHORS].sudi_ca, at=now)
        check_machine(identity, (yield from ask(ReadText(DMI_SERIAL))))
        return Facts().plus(IDENTITY, identity)


PHASE = _Phase(
    "new identity",
    modes=PROVISIONS,
    needs=frozenset({ANCHORS, CLOCK, NEW_IDENTITY}),
    gives=frozenset({IDENTITY}),
)
