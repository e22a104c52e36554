"""Reading manifests and images from a registry, verified, into a layout in memory.

Everything here works on the ``Repository`` protocol: a registry, a folder, or memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from machineos.document.product.artifacts import root_hash_artifact
from machineos.document.verify.images import (
    REPOSITORY,
    image_name,
    root_hash_signatures,
    verify_target,
)
from machineos.document.verify.layers import require_mountable
from machineos.document.verify.published import Fetched, fetch_verified
from machineos.errors import (
    DocumentError,
    MachineOSError,
    SpaceError,
    StalledError,
    VerificationError,
)
from machineos.install.steps import Inspected, Signatures
from machineos.oci.graph.copy import copy_graph
from machineos.oci.model.atomfs import root_hash_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from uuid import UUID

    from machineos.document.product.install import Target
    from machineos.oci.model.place import Place
    from machineos.oci.model.repository import Registry, Repository
    from machineos.trust.verify.chain import Publisher

T = TypeVar("T")


def fetch_manifest(
    registry: Registry, place: Place, *, ca_pem: bytes, at: datetime, product: UUID
) -> Fetched:
    """Return the verified manifest of a place.

    Raises: SignatureError, PolicyError (another product), MissingError, DocumentError,
    TransferError.
    """
    repository = registry.repository(place.name)
    return fetch_verified(repository, place.tag, ca_pem=ca_pem, at=at, product=product)


def inspect_image(
    registry: Registry, place: Place, target: Target, publisher: Publisher
) -> Inspected:
    """Return the verified image manifest of a target with the publisher's root hash signatures.

    Of the layer the head is read: one that nobody could mount is not fetched.

    Raises: MissingError, TransferError, VerificationError, DocumentError.
    """

    def inspect(source: Repository) -> Inspected:
        image = verify_target(source, target)
        require_mountable(source, image, image_name(target), tree=False)
        found = root_hash_signatures(source, target, image, publisher)
        signatures = tuple(
            (layer.digest, root_hash_of(layer), found[layer.digest])
            for layer in image.layers
            if layer.digest in found
        )
        return Inspected(image, signatures)

    return _first_good(registry, place, inspect, _is_signed)


def fetch_image(
    registry: Registry, place: Place, target: Target, signatures: Signatures, into: Repository
) -> None:
    """Copy the image of a target with these signatures of its root hashes.

    Raises: DigestError, MissingError, TransferError, SpaceError.
    """
    copied = _first_good(
        registry, place, lambda source: copy_graph(source, into, target.digest, tag=target.tag)
    )
    root_hash_artifact(copied, signatures).store(into)


def image_places(name: str) -> tuple[str, ...]:
    """Return the repositories in which the images of the manifest ``name`` can be: that of the
    registry, and those of the owners that the name begins with, outermost first."""
    owners = name.split("/")[:-1]
    return (REPOSITORY, *(f"{'/'.join(owners[: n + 1])}/{REPOSITORY}" for n in range(len(owners))))


def _is_signed(inspected: Inspected) -> bool:
    return len(inspected.signatures) == len(inspected.image.layers)


def _first_good(
    registry: Registry,
    place: Place,
    read: Callable[[Repository], T],
    is_good: Callable[[T], bool] = lambda _found: True,
) -> T:
    """Return what ``read`` finds in the first repository where it finds it whole and signed: what
    it is, its digest says, and not where it was found. Raises: what ``read`` raises; of several
    refusals one of what is there, else the first."""
    refusals: list[MachineOSError] = []
    others: list[T] = []
    for name in image_places(place.name):
        try:
            found = read(registry.repository(name))
        except (StalledError, SpaceError):
            raise
        except MachineOSError as error:  # whatever is wrong at one place hides nothing of another
            refusals.append(error)
        else:
            if is_good(found):
                return found
            others.append(found)
    if others:
        return others[0]  # for the caller to refuse
    there = [error for error in refusals if isinstance(error, VerificationError | DocumentError)]
    raise (there or refusals)[0]
