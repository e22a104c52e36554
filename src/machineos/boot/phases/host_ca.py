"""Make the CA of this machine while the key of the device identity is at hand: never again.

The machine issues the certificates of its services with it; that the device identity signed it is
what leads from one of those to the identity.
"""

from __future__ import annotations

from machineos.boot.facts import (
    DRIVERS,
    FIRST_DOOR,
    HOST_CA,
    IDENTITY,
    INSTALLS,
    SEALED,
    Facts,
    Phase,
)
from machineos.boot.steps import ForgetSecret, MakeHostCa, ReadSealed
from machineos.core.steps import Talk, ask
from machineos.trust.seal.layout import Index


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        key = yield from ask(ReadSealed(Index.SUDI_KEY))
        made = yield from ask(MakeHostCa(facts[IDENTITY], key))
        yield from ask(ForgetSecret(key))
        return Facts().plus(HOST_CA, made)


PHASE = _Phase(
    "host CA",
    modes=INSTALLS,
    needs=frozenset({DRIVERS, SEALED, FIRST_DOOR, IDENTITY}),
    gives=frozenset({HOST_CA}),
)
