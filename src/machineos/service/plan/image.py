"""The image of a service: its manifest checked against the hand-over and understood. Pure.

What an image must be is in ``document.rules``; the publisher, the installer and the initrd refuse
by the same rules. The bytes that are hashed are the bytes that are parsed. Invariant: an ``Image``
has exactly one layer, the one the initrd named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from machineos.core.digest import Digest
from machineos.document.rules import handover
from machineos.document.rules.images import CONFIG_SIZE, check_image
from machineos.errors import DigestError, MissingError
from machineos.oci.model.atomfs import FilesystemKind, Layer, layer_type_of
from machineos.oci.model.documents import parse_manifest

if TYPE_CHECKING:
    from machineos.document.between.handover import Service


class Image(msgspec.Struct, frozen=True):
    """A checked image manifest; ``config`` is the digest of its configuration."""

    layer: Layer
    filesystem: FilesystemKind
    config: Digest


def image_name(service: Service) -> str:
    """Return what messages call the image of a service, as all who refuse it do."""
    return f"image of {service.name}"


def check_blob(data: bytes | None, digest: Digest, *, what: str) -> bytes:
    """Return the bytes of a blob of the store, None being one that is not there.

    Raises: MissingError, DigestError (they are not those that the digest names).
    """
    if data is None:
        raise MissingError(f"{what}: {digest} is not in the store")
    try:
        digest.check(data, what)
    except DigestError as error:
        raise DigestError(error.message, hint="the store is damaged: install again") from error
    return data


def check_manifest(service: Service, data: bytes) -> Image:
    """Return what the image manifest of ``service`` says, which was read as ``data``.

    Raises: VerificationError (no machine mounts it, or it does not say what the hand-over says),
    DocumentError.
    """
    name = image_name(service)
    manifest = parse_manifest(data, name=name)
    check_image(manifest, name, service.name)
    CONFIG_SIZE.require(manifest, name)
    handed = service.layer
    mounted = handover.Mounted(
        manifest, service.config_digest, handed.blob_digest, handed.verity_hash
    )
    for rule in handover.IMAGE:
        rule.require(mounted, name)
    layer = manifest.layers[0]
    return Image(Layer.of(layer), layer_type_of(layer).filesystem, manifest.config.digest)
