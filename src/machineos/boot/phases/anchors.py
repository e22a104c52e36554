"""Read what everything else is verified against; it is part of the signed image."""

from __future__ import annotations

from machineos.boot.facts import ALWAYS, ANCHORS, COMMAND_LINE, RUN, SCRATCH, Facts, Phase
from machineos.boot.steps import MakeFolder, ReadFile
from machineos.core.steps import Talk, ask
from machineos.document.between.bootsettings import ANCHOR_FILES, FOLDER, Anchors

_LIMIT = 65536


class _Phase(Phase, frozen=True):
    def talk(self, _facts: Facts) -> Talk[Facts]:
        yield from ask(MakeFolder(RUN))
        contents = []
        for name in ANCHOR_FILES:
            contents.append((yield from ask(ReadFile(FOLDER / name, _LIMIT))))
        return Facts().plus(ANCHORS, Anchors(*contents))


PHASE = _Phase(
    "anchors",
    modes=ALWAYS,
    needs=frozenset({COMMAND_LINE}),
    gives=frozenset({SCRATCH, ANCHORS}),
)
