"""Move a clock that is behind the build of this image up to it (a dead RTC battery)."""

from __future__ import annotations

from machineos.boot.facts import ALWAYS, CLOCK, SETTINGS, Facts, Phase
from machineos.boot.steps import ReadClock, SetClock
from machineos.core.steps import Talk, ask


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        epoch = facts[SETTINGS].epoch
        if (yield from ask(ReadClock())).timestamp() < epoch:
            yield from ask(SetClock(epoch))
        return Facts()


PHASE = _Phase("clock", modes=ALWAYS, needs=frozenset({SETTINGS}), gives=frozenset({CLOCK}))
