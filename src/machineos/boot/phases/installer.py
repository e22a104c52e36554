"""Leave the configuration key for the installer, in root's keyring and nowhere else."""

from __future__ import annotations

from machineos.boot.facts import (
    DEPARTURE,
    ENFORCING,
    FRESH,
    INSTALLS,
    KEY,
    UNSEALED,
    Departure,
    Facts,
    Phase,
)
from machineos.boot.steps import KeepSecret
from machineos.core.steps import Talk, ask
from machineos.document.between.medium import INSTALL_KEY


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        yield from ask(KeepSecret(INSTALL_KEY, facts[KEY]))
        arguments = ("--unit=machineos-install.target",)
        departure = Departure((), "handing over to the installer", arguments)
        return Facts().plus(DEPARTURE, departure)


PHASE = _Phase(
    "installer",
    modes=INSTALLS,
    needs=frozenset({KEY, UNSEALED, ENFORCING, FRESH}),
    gives=frozenset({DEPARTURE}),
)
