"""Wait for the kernel modules that every boot needs, and a first driver.

Nothing asks the TPM before they are there: the kernel measures each module under Secure Boot, and
the TPM ends a policy session when a PCR changes.
"""

from __future__ import annotations

from machineos.boot.facts import ALWAYS, DRIVERS, LOADING, Facts, Phase
from machineos.boot.steps import WaitForDrivers
from machineos.core.steps import Talk, ask


class _Phase(Phase, frozen=True):
    def talk(self, _facts: Facts) -> Talk[Facts]:
        yield from ask(WaitForDrivers())
        return Facts()


PHASE = _Phase("drivers", modes=ALWAYS, needs=frozenset({LOADING}), gives=frozenset({DRIVERS}))
