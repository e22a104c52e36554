"""Verify the manifest of the installer's own root: signed for this machine's product.

Invariant: what comes out has a hostfs and a bootkit.
"""

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
from machineos.document.rules.product import BOOTS
from machineos.document.rules.subject import together
from machineos.document.verify.images import REPOSITORY


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        medium = facts[MEDIUM]
        layouts = MEDIUM_FOLDER / LAYOUTS
        name, _, tag = medium.index.live.rpartition(":")
        verified = yield from ask(
            FetchManifest(layouts, name, tag, facts[ANCHORS].manifest_ca, facts[IDENTITY].product)
        )
        install = verified.install
        # Whatever else was left out of it: it has to be a root of its own.
        what = f"install medium {medium.device}"
        BOOTS.require(together(install.product, install.targets, ()), what)
        yield from ask(Say(f"{what} verified"))
        publisher = verified.publisher
        sources = tuple(Source(target, publisher) for target in install.targets)
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
