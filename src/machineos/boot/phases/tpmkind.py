"""Say which kind of TPM this machine has, and refuse it where the product wants another.

The medium that installs says it too, and leaves it for ``mosctl check``: later nobody asks a TPM.
"""

from __future__ import annotations

from pathlib import Path

from machineos.boot.facts import (
    DRIVERS,
    INSTALLS,
    PROVISIONS,
    RUN,
    SCRATCH,
    SETTINGS,
    TPM_KIND,
    Facts,
    Phase,
)
from machineos.boot.steps import ReadText, ReadTpmMaker, Say, WriteFile
from machineos.core.steps import Talk, ask
from machineos.document.between.medium import TPM_KIND_FILE
from machineos.trust.seal.tpmkind import DEVICE, check_kind, describe, driver_of, kind_of


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        maker = yield from ask(ReadTpmMaker())
        driver = driver_of((yield from ask(ReadText(Path(DEVICE)))))
        check_kind(maker, driver, facts[SETTINGS].tpm_kind)
        yield from ask(Say(describe(maker, driver)))
        yield from ask(WriteFile(RUN / TPM_KIND_FILE, kind_of(maker, driver).encode()))
        return Facts()


PHASE = _Phase(
    "tpm kind",
    modes=PROVISIONS | INSTALLS,
    needs=frozenset({SETTINGS, SCRATCH, DRIVERS}),
    gives=frozenset({TPM_KIND}),
)
