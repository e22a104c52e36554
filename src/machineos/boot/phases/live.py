"""Verify the manifest of the installer's own root: signed for this machine's product."""

from __future__ import annotations

from machineos.boot.facts import (
    ANCHORS,
    IDENTITY,
    INSTALLS,
    MEDIUM,
    MEDIUM_FOLDER,
    PUBLISHERS,
    SOURCES,
    STORE,
    Facts,
    Phase,
    Source,
)
from machineos.boot.steps import FetchManifest, Say
from machineos.core.steps import Talk, ask
from machineos.document.between.medium import LAYOUTS
from machineos.document.verify.images import REPOSITORY


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        medium = facts[MEDIUM]
        layouts = MEDIUM_FOLDER / LAYOUTS
        name, _, tag = medium.index.live.rpartition(":")
        verified = yield from ask(
            FetchManifest(layouts, name, tag, facts[ANCHORS].manifest_ca, facts[IDENTITY].product)
        )
        yield from ask(Say(f"install medium {medium.device} verified"))
        publisher = verified.publisher
        sources = tuple(Source(target, publisher) for target in verified.install.targets)
        return (
            Facts()
            .plus(SOURCES, sources)
            .plus(PUBLISHERS, (publisher.certificate_der,))
            .plus(STORE, layouts / REPOSITORY)
        )


PHASE = _Phase(
    "live",
    modes=INSTALLS,
    needs=frozenset({ANCHORS, IDENTITY, MEDIUM}),
    gives=frozenset({SOURCES, PUBLISHERS, STORE}),
)
