"""Read what this machine runs out of its configuration, and verify every document of it again.

Invariant: what comes out has a hostfs and a bootkit.
"""

from __future__ import annotations

from pathlib import Path

from machineos.boot.facts import (
    ANCHORS,
    CONFIG_FOLDER,
    DISK_FLAGS,
    FIRST_DOOR,
    FORGOTTEN,
    GENERATION,
    IDENTITY,
    OPENED,
    PUBLISHERS,
    RUNS,
    SOURCES,
    UNSEALED,
    Facts,
    Generation,
    Phase,
    Source,
)
from machineos.boot.steps import MakeFolder, MountDisk, ReadFile, Say
from machineos.core.steps import Talk, ask
from machineos.document.product.artifacts import MAX_SMALL
from machineos.document.product.install import MAX_INSTALL
from machineos.document.state import system
from machineos.state.volumes.header import NAME

DEVICE = Path("/dev/mapper") / NAME


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        yield from ask(MakeFolder(CONFIG_FOLDER))
        yield from ask(MountDisk(DEVICE, CONFIG_FOLDER, "ext4", DISK_FLAGS))
        data = yield from ask(ReadFile(CONFIG_FOLDER / system.SYSTEM_FILE, system.MAX_SYSTEM))
        stored = system.parse_system(data)
        contents: dict[str, bytes] = {}
        for sha256 in stored.manifests:
            document, signature, certificate = system.document_files(sha256)
            limits = {document: MAX_INSTALL, signature: MAX_SMALL, certificate: MAX_SMALL}
            for name, limit in limits.items():
                contents[name] = yield from ask(ReadFile(CONFIG_FOLDER / name, limit))
        verified = system.load_verified(
            lambda name, _limit: contents[name],
            stored,
            ca_pem=facts[ANCHORS].manifest_ca,
            at=None,
            product=facts[IDENTITY].product,
        )
        merged = system.merge(verified)
        system.require_bootable(merged)
        yield from ask(Say(f"generation {merged.manifests[-1][:12]} verified"))
        publishers = {document.sha256: document.publisher for document in verified}
        sources = tuple(Source(entry.target, publishers[entry.source]) for entry in merged.targets)
        return (
            Facts()
            .plus(GENERATION, Generation(merged, stored.idmaps))
            .plus(SOURCES, sources)
            .plus(PUBLISHERS, tuple(one.certificate_der for one in publishers.values()))
        )


PHASE = _Phase(
    "generation",
    modes=RUNS,
    needs=frozenset({OPENED, FORGOTTEN, UNSEALED, FIRST_DOOR, ANCHORS, IDENTITY}),
    gives=frozenset({GENERATION, SOURCES, PUBLISHERS}),
)
