"""An image, stored: layers, configuration, manifest.

Owns the order, in which nothing is named before it is there. What stands in the configuration is
decided in ``config``; a layer is a file that ``filesystem`` made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.core.digest import Digest
from machineos.oci.model.documents import CONFIG, MANIFEST, Descriptor, Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from machineos.build.recipe.veritylayer import VerityLayer
    from machineos.oci.model.repository import Repository

_CHUNK = 1 << 20


def put_image(
    sink: Repository,
    layers: Sequence[VerityLayer],
    config: bytes,
    *,
    tag: str | None,
    annotations: Mapping[str, str] | None = None,
) -> Descriptor:
    """Store layers, configuration and manifest of an image, in this order.

    Raises: SpaceError, TransferError.
    """
    for layer in layers:
        sink.put_blob(layer.descriptor, _chunks(layer))
    entry = Descriptor(media_type=CONFIG, digest=Digest.of(config), size=len(config))
    sink.put_blob(entry, (config,))
    manifest = Manifest(
        media_type=MANIFEST,
        config=entry,
        layers=tuple(layer.descriptor for layer in layers),
        annotations=dict(sorted((annotations or {}).items())),
    )
    return sink.put_manifest(manifest.to_bytes(), media_type=MANIFEST, tag=tag)


def _chunks(layer: VerityLayer) -> Iterator[bytes]:
    with layer.path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
