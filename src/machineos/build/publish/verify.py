"""Verifying a published manifest the way a machine does before it installs it, and deeper.

Everything is judged by what the machine's own side uses (``document.verify``); only ``deep`` goes
further than a machine does before it stores something: every blob is read to its end.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from machineos.build.foreign.signed import signature_tag
from machineos.build.publish.together import each, raise_all
from machineos.build.recipe.use import Container, Use
from machineos.document.rules.product import BOOTS
from machineos.document.rules.subject import declared
from machineos.document.verify.images import REPOSITORY, check_config, read_config, verify_image
from machineos.document.verify.layers import require_mountable
from machineos.errors import (
    DigestError,
    MachineOSError,
    MissingError,
    TransferError,
    VerificationError,
)
from machineos.oci.graph.deep import check
from machineos.oci.model.atomfs import root_hash_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from machineos.build.recipe.use import Inspects
    from machineos.core.digest import Digest
    from machineos.document.model.install import Target
    from machineos.document.verify.images import VerifiedImage
    from machineos.document.verify.published import VerifiedInstall
    from machineos.oci.model.documents import Descriptor
    from machineos.oci.model.repository import Registry, Repository


def verify_images(
    registry: Registry, verified: VerifiedInstall, *, deep: Inspects | None
) -> tuple[VerifiedImage, ...]:
    """Return the images that a verified manifest names, each by all rules, in its order.

    ``deep`` reads every blob, and looks into each layer: every block by its root hash, and what is
    inside. Without it, that they are there is enough, and of a layer the head is read.

    Raises: MissingError, TransferError, DigestError, DocumentError, VerificationError,
    SignatureError, PolicyError, SeveralError.
    """
    store = registry.repository(REPOSITORY)
    BOOTS.require(declared(verified.install), "the manifest")

    def judged(target: Target) -> tuple[VerifiedImage, Use]:
        image = verify_image(store, target, verified.publisher)
        if deep is None:
            _require_blobs(store, image)
        container = _container(store, image)
        if deep is None:
            require_mountable(store, image.manifest, image.name, tree=False)
        return image, Use(target.service_name, image.name, container)

    images = each(judged, verified.install.targets)
    if deep is not None:
        _require_whole(store, images, deep)
    return tuple(image for image, _ in images)


def require_beside(own: Repository, manifest: Digest) -> None:
    """Check the bytes of what cosign would verify of the ``manifest`` in ``own``, if that is there.

    Whether it is signed is not asked: no machine looks at it.
    Raises: VerificationError, DocumentError, TransferError.
    """
    tag = signature_tag(manifest)
    try:
        own.resolve(tag)
    except MissingError:
        return
    damage = check(own, (tag,), referrers=False)
    if damage:
        lines = "".join(f"\n  {one}" for one in damage)
        raise VerificationError(f"{own.name}: the signature for cosign is damaged{lines}")


# A registry that has a blob of the right name and size is not sent it again.
_REPAIR = "remove the damaged blobs from the registry or the layout, then publish it again"


def _container(store: Repository, image: VerifiedImage) -> Container | None:
    """Return what the container of an image needs, None for one that is only mounted."""
    if image.target.service_type != "container":
        check_config(store, image.manifest, image.name)
        return None
    config = read_config(store, image.manifest, image.name)
    return Container(image.target.storage or (), config.user)


def _require_blobs(store: Repository, image: VerifiedImage) -> None:
    for blob in (image.config, *image.layers):
        if not store.has_blob(blob.digest):
            raise MissingError(f"{image.name}: blob {blob.digest} is missing")


def _require_whole(
    store: Repository, images: Sequence[tuple[VerifiedImage, Use]], inspector: Inspects
) -> None:
    names = {str(image.target.image): image.name for image, _ in images}
    bad: list[MachineOSError] = []

    def look(blob: Descriptor, chunks: Iterator[bytes]) -> None:
        for number, (layer, uses) in enumerate(_uses(blob.digest, images)):
            try:
                if number:
                    inspector.inspect_layer(store, layer, uses)
                else:
                    inspector.look(layer, chunks, uses)
            except (DigestError, TransferError):
                raise  # it is damaged, which is said of the blob
            except MachineOSError as error:
                bad.append(error)

    damage = check(store, names, referrers=False, look=look)
    if damage:
        lines = "".join(f"\n  {names[one.root]}: {one}" for one in damage)
        raise VerificationError(f"{store.name}: is damaged{lines}", hint=_REPAIR)
    raise_all(bad)


def _uses(
    blob: Digest, images: Sequence[tuple[VerifiedImage, Use]]
) -> list[tuple[Descriptor, list[Use]]]:
    """Return who has the blob as a layer: images may name it with another type or root hash."""
    found: dict[tuple[str, str], tuple[Descriptor, list[Use]]] = {}
    for image, use in images:
        for number, layer in enumerate(image.layers):
            if layer.digest == blob:
                key = layer.media_type, root_hash_of(layer)
                found.setdefault(key, (layer, []))[1].append(replace(use, part=number))
    return list(found.values())
