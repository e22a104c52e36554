"""Fetching and verifying everything that a manifest names, into memory, before the disk is touched.

Invariant: what ``stage`` returns is complete and verified: the signature over install.json, every
image manifest, configuration and layer by digest, a root hash signature for every layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.core.size import show_size
from machineos.document.product.artifacts import root_hash_artifact
from machineos.document.verify.images import REPOSITORY, root_hash_signatures, verify_target
from machineos.document.verify.published import Fetched, fetch_verified
from machineos.errors import PolicyError, SignatureError, SpaceError, VerificationError
from machineos.oci.graph.copy import copy_graph
from machineos.oci.model.atomfs import root_hash_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from uuid import UUID

    from machineos.core.digest import Digest
    from machineos.document.product.install import Target
    from machineos.oci.layout.folder import LayoutRepository
    from machineos.oci.model.documents import Manifest
    from machineos.oci.model.repository import Registry, Repository
    from machineos.trust.verify.chain import Publisher

_NEEDED = ("hostfs", "bootkit")


@dataclass(frozen=True, slots=True)
class Staged:
    """A verified manifest and the image manifest of each target, by service name."""

    fetched: Fetched
    images: dict[str, Manifest]
    size: int


def stage(
    registry: Registry,
    name: str,
    tag: str,
    into: LayoutRepository,
    *,
    ca_pem: bytes,
    at: datetime,
    product: UUID,
    room: int,
    say: Callable[[str], None],
) -> Staged:
    """Bring the manifest ``name:tag`` and all its images into ``into``.

    ``room`` is how many bytes ``into`` can take. Raises: PolicyError (another product, a partial
    manifest), SignatureError, VerificationError, MissingError, TransferError, SpaceError.
    """
    fetched = fetch_verified(registry.repository(name), tag, ca_pem=ca_pem, at=at, product=product)
    install = fetched.verified.install
    say(f"manifest {fetched.verified.sha256[:12]} of product {install.product} verified")
    if install.update_type != "complete":
        raise PolicyError(
            f"{name}:{tag} is a partial manifest; only a complete one can be installed"
        )
    for needed in _NEEDED:
        if install.target(needed) is None:
            raise PolicyError(
                f"{name}:{tag} has no target {needed}", hint="publish it without --skip-boot"
            )
    source = registry.repository(REPOSITORY)
    images = {target.service_name: verify_target(source, target) for target in install.targets}
    for service, image in images.items():
        if len(image.layers) != 1:  # found at boot, it would be a machine that does not start
            raise VerificationError(
                f"image of {service}: has {len(image.layers)} layers, a machine mounts only one",
                hint="publish it with `mosb manifest publish`, which makes one of them",
            )
    size = sum(_size(image) for image in images.values())
    if size > room:
        raise SpaceError(
            f"the images take {show_size(size)}, there is room for {show_size(room)}",
            hint="give the machine more memory for the installation",
        )
    for target in install.targets:
        say(f"fetching {target.service_name} {target.version}")
        copied = copy_graph(source, into, target.digest, tag=target.tag)
        image = images[target.service_name]
        signatures = _signatures(source, image, target, fetched.verified.publisher)
        root_hash_artifact(copied, signatures).store(into)
    return Staged(fetched, images, size)


def _signatures(
    source: Repository, image: Manifest, target: Target, publisher: Publisher
) -> tuple[tuple[Digest, str, bytes], ...]:
    """Return the publisher's signature of each layer's root hash.

    Only these are taken over: what others attached to the image could be any number of any size.
    """
    found = root_hash_signatures(source, target, image, publisher)
    for layer in image.layers:
        if layer.digest not in found:
            raise SignatureError(
                f"image of {target.service_name}: nobody signed the root hash of layer "
                f"{layer.digest}"
            )
    return tuple((layer.digest, root_hash_of(layer), found[layer.digest]) for layer in image.layers)


def _size(image: Manifest) -> int:
    return image.config.size + sum(layer.size for layer in image.layers)
