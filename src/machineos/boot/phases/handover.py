"""Leave for mosd what it runs: by digest what was verified, and the signatures of root hashes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from machineos.boot.facts import (
    CONFIG_FOLDER,
    DATA_FOLDER,
    DEPARTURE,
    FRESH,
    GENERATION,
    IMAGES,
    REQUESTS,
    RUN,
    RUNS,
    SCRATCH,
    STORE,
    STORE_FOLDER,
    VOLUMES,
    Departure,
    Facts,
    Generation,
    Image,
    Phase,
)
from machineos.boot.phases.root import blob_path
from machineos.boot.steps import MakeFolder, WriteFile
from machineos.core.steps import Talk, ask
from machineos.document.between import handover

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Kind = Literal["container", "fs-only"]

DOCUMENT = RUN / "boot.json"
SIGNATURES = RUN / "signatures"


def signature_file(image: Image) -> Path:
    """Return where mosd finds the signature of the image's root hash."""
    return SIGNATURES / f"{image.layer.digest.hex}.p7s"


def services_of(images: Iterable[Image]) -> Iterator[tuple[Image, Kind]]:
    """Yield what mosd runs, and as what: every target that is neither hostfs nor bootkit."""
    for image in images:
        kind = image.target.service_type
        if kind != "hostfs" and image.target.service_name != "bootkit":
            yield image, kind


def make_handover(
    generation: Generation, images: tuple[Image, ...], *, store: Path, volumes_key: bytes
) -> handover.Handover:
    """Return the document for mosd."""
    return handover.Handover(
        version=handover.VERSION,
        generation=generation.system.manifests[-1],
        product=generation.system.product,
        store=str(store),
        data=str(DATA_FOLDER),
        volumes_key=volumes_key.hex(),
        services=tuple(
            _service(generation, image, kind, store) for image, kind in services_of(images)
        ),
        volumes=tuple(
            handover.Volume(item.name, item.persistent, item.size, item.nsgroup)
            for item in (each.storage for each in generation.system.storage)
        ),
    )


def _service(generation: Generation, image: Image, kind: Kind, store: Path) -> handover.Service:
    target = image.target
    return handover.Service(
        name=target.name,
        version=target.release,
        type=kind,
        image=str(target.image),
        config=str(image.config),
        layer=handover.Layer(
            digest=str(image.layer.digest),
            root_hash=image.layer.root_hash,
            blob=str(blob_path(store, image.layer)),
            signature=str(signature_file(image)),
        ),
        network=target.network,
        nsgroup=target.nsgroup,
        hostid=generation.idmaps.get(target.nsgroup, 0),
        storage=target.storage or (),
    )


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        images = facts[IMAGES]
        yield from ask(MakeFolder(SIGNATURES))
        for image, _ in services_of(images):
            yield from ask(WriteFile(signature_file(image), image.signature))
        document = make_handover(
            facts[GENERATION], images, store=facts[STORE], volumes_key=facts[VOLUMES]
        )
        yield from ask(WriteFile(DOCUMENT, handover.encode_handover(document)))
        departure = Departure((CONFIG_FOLDER, STORE_FOLDER), "handing over to systemd")
        return Facts().plus(DEPARTURE, departure)


PHASE = _Phase(
    "handover",
    modes=RUNS,
    needs=frozenset({SCRATCH, GENERATION, STORE, IMAGES, FRESH, REQUESTS, VOLUMES}),
    gives=frozenset({DEPARTURE}),
)
