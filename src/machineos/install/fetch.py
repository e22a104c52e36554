"""Reading manifests and images from a registry, verified, into a layout in memory.

Everything here works on the ``Repository`` protocol: a registry, a folder, or memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.document.product.artifacts import root_hash_artifact
from machineos.document.verify.images import (
    REPOSITORY,
    image_name,
    root_hash_signatures,
    verify_target,
)
from machineos.document.verify.layers import require_mountable
from machineos.document.verify.published import Fetched, fetch_verified
from machineos.install.steps import Inspected, Signatures
from machineos.oci.graph.copy import copy_graph
from machineos.oci.model.atomfs import root_hash_of

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from machineos.document.product.install import Target
    from machineos.oci.model.place import Place
    from machineos.oci.model.repository import Registry, Repository
    from machineos.trust.verify.chain import Publisher


def fetch_manifest(
    registry: Registry, place: Place, *, ca_pem: bytes, at: datetime, product: UUID
) -> Fetched:
    """Return the verified manifest of a place.

    Raises: SignatureError, PolicyError (another product), MissingError, DocumentError,
    TransferError.
    """
    repository = registry.repository(place.name)
    return fetch_verified(repository, place.tag, ca_pem=ca_pem, at=at, product=product)


def inspect_image(registry: Registry, target: Target, publisher: Publisher) -> Inspected:
    """Return the verified image manifest of a target with the publisher's root hash signatures.

    Of the layer the head is read: one that nobody could mount is not fetched.

    Raises: MissingError, TransferError, VerificationError, DocumentError.
    """
    source = registry.repository(REPOSITORY)
    image = verify_target(source, target)
    require_mountable(source, image, image_name(target), tree=False)
    found = root_hash_signatures(source, target, image, publisher)
    signatures = tuple(
        (layer.digest, root_hash_of(layer), found[layer.digest])
        for layer in image.layers
        if layer.digest in found
    )
    return Inspected(image, signatures)


def fetch_image(
    registry: Registry, target: Target, signatures: Signatures, into: Repository
) -> None:
    """Copy the image of a target with these signatures of its root hashes.

    Raises: DigestError, MissingError, TransferError, SpaceError.
    """
    source = registry.repository(REPOSITORY)
    copied = copy_graph(source, into, target.digest, tag=target.tag)
    root_hash_artifact(copied, signatures).store(into)
