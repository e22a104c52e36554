"""Say which kind of TPM this machine has, and refuse it where the product wants another."""

from __future__ import annotations

from pathlib import Path

from machineos.boot.facts import DRIVERS, PROVISIONS, SETTINGS, TPM_KIND, Facts, Phase
from machineos.boot.steps import ReadText, ReadTpmMaker, Say
from machineos.core.steps import Talk, ask
from machineos.trust.seal.tpmkind import DEVICE, check_kind, describe, driver_of


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        maker = yield from ask(ReadTpmMaker())
        driver = driver_of((yield from ask(ReadText(Path(DEVICE)))))
        check_kind(maker, driver, facts[SETTINGS].tpm_kind)
        yield from ask(Say(describe(maker, driver)))
        return Facts()


PHASE = _Phase(
    "tpm kind",
    modes=PROVISIONS,
    needs=frozenset({SETTINGS, DRIVERS}),
    gives=frozenset({TPM_KIND}),
)
