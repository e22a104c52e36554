"""Verifying a published manifest the way a machine does before it installs it, and deeper.

Everything is judged by what the machine's own side uses (``document.verify``); only ``deep`` goes
further than a machine does before it stores something: every blob is read to its end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.document.rules.product import BOOTS
from machineos.document.rules.subject import declared
from machineos.document.verify.images import REPOSITORY, read_config, verify_image
from machineos.document.verify.layers import require_mountable, require_seen, see
from machineos.errors import MissingError, VerificationError
from machineos.oci.graph.deep import check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from machineos.core.digest import Digest
    from machineos.document.rules.layer import Seen
    from machineos.document.verify.images import VerifiedImage
    from machineos.document.verify.published import VerifiedInstall
    from machineos.oci.model.documents import Descriptor
    from machineos.oci.model.repository import Registry, Repository


def verify_images(
    registry: Registry, verified: VerifiedInstall, *, deep: bool
) -> tuple[VerifiedImage, ...]:
    """Return the images that a verified manifest names, each by all rules, in its order.

    ``deep`` reads every blob, and looks at the hash tree of each layer; otherwise that they are
    there is enough, and of a layer the head is read.

    Raises: MissingError, TransferError, DigestError, DocumentError, VerificationError,
    SignatureError, PolicyError.
    """
    store = registry.repository(REPOSITORY)
    BOOTS.require(declared(verified.install), "the manifest")
    images = []
    for target in verified.install.targets:
        image = verify_image(store, target, verified.publisher)
        if target.service_type == "container":
            read_config(store, image.manifest, image.name)
        if not deep:
            _require_blobs(store, image)
            require_mountable(store, image.manifest, image.name, tree=False)
        images.append(image)
    if deep:
        _require_whole(store, images)
    return tuple(images)


# A registry that has a blob of the right name and size is not sent it again.
_REPAIR = "remove the damaged blobs from the registry or the layout, then publish it again"


def _require_blobs(store: Repository, image: VerifiedImage) -> None:
    for blob in (image.config, *image.layers):
        if not store.has_blob(blob.digest):
            raise MissingError(f"{image.name}: blob {blob.digest} is missing")


def _require_whole(store: Repository, images: list[VerifiedImage]) -> None:
    names = {str(image.target.image): image.name for image in images}
    layers = {(layer.digest, layer.media_type) for image in images for layer in image.layers}
    looked: dict[tuple[Digest, str], Seen] = {}

    def look(blob: Descriptor, chunks: Iterator[bytes]) -> None:
        key = blob.digest, blob.media_type
        if key in layers:
            looked[key] = see(blob, chunks, tree=True)

    damage = check(store, names, referrers=False, look=look)
    if damage:
        lines = "".join(f"\n  {names[one.root]}: {one}" for one in damage)
        raise VerificationError(f"{store.name}: is damaged{lines}", hint=_REPAIR)
    for image in images:
        found = [looked.get((layer.digest, layer.media_type)) for layer in image.layers]
        if None in found:  # the same bytes under another type, which were read as that
            require_mountable(store, image.manifest, image.name, tree=True)
        for seen in found:
            if seen is not None:
                require_seen(seen, image.name)
