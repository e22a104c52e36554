"""Fetching and verifying everything that a manifest names, into memory, before the disk is touched.

Invariant: what ``stage`` returns is complete and verified: the signature over install.json, every
image manifest, configuration and layer by digest, a root hash signature for every layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.core.size import show_size
from machineos.errors import PolicyError, SignatureError, SpaceError
from machineos.manifest.artifacts import ROOT_HASH_SIGNATURE
from machineos.manifest.targets import REPOSITORY, root_hash_signatures, verify_target
from machineos.manifest.verify import Fetched, fetch_verified
from machineos.oci.copy import copy_graph

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from uuid import UUID

    from machineos.manifest.install import Target
    from machineos.oci.layout import LayoutRepository
    from machineos.oci.model import Manifest
    from machineos.oci.repository import Registry, Repository
    from machineos.trust.verify import Publisher

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
    size = sum(_size(image) for image in images.values())
    if size > room:
        raise SpaceError(
            f"the images take {show_size(size)}, there is room for {show_size(room)}",
            hint="give the machine more memory for the installation",
        )
    for target in install.targets:
        say(f"fetching {target.service_name} {target.version}")
        copy_graph(
            source,
            into,
            target.digest,
            tag=target.tag,
            referrers=[ROOT_HASH_SIGNATURE],
        )
        _check_signatures(into, images[target.service_name], target, fetched.verified.publisher)
    return Staged(fetched, images, size)


def _check_signatures(
    store: Repository, image: Manifest, target: Target, publisher: Publisher
) -> None:
    name = target.service_name
    found = root_hash_signatures(store, target, image, publisher)
    for digest, candidates in found.items():
        if not candidates:
            raise SignatureError(f"image of {name}: nobody signed the root hash of layer {digest}")


def _size(image: Manifest) -> int:
    return image.config.size + sum(layer.size for layer in image.layers)
