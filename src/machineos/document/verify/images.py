"""The images that a verified manifest names: what must hold before one is stored or mounted.

The chain continues here: the signed document names the digest and size of an image manifest, which
names its layers and, in their annotations, the dm-verity root hashes. The signature of a root hash
comes as an artifact that refers to the image (``artifacts.root_hash_artifact``); the kernel alone
judges it; what is returned here is what the publisher made, byte for byte, so that nobody else's
can stand in its place.

``verify_image`` is the whole of it, for whoever mounts or installs. Invariant: a ``VerifiedImage``
comes from it alone.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import TYPE_CHECKING

from machineos.core.digest import Digest
from machineos.document.model.limits import MAX_CONFIG
from machineos.document.product.artifacts import (
    LAYER_DIGEST,
    LAYER_ROOT_HASH,
    PKCS7,
    ROOT_HASH_SIGNATURE,
    Referrers,
)
from machineos.document.product.image import check_image_config, parse_image_config
from machineos.document.rules import images, roothash
from machineos.document.verify.proof import Proof
from machineos.errors import DigestError
from machineos.oci.model.atomfs import root_hash_of
from machineos.oci.model.documents import parse_manifest
from machineos.trust.verify.roothash import is_signature

if TYPE_CHECKING:
    from collections.abc import Mapping

    from machineos.core.word import RootHash
    from machineos.document.model.image import ImageConfig
    from machineos.document.model.install import Target
    from machineos.oci.model.documents import Descriptor, Manifest
    from machineos.oci.model.repository import Repository
    from machineos.trust.verify.chain import Publisher

REPOSITORY = "mos"  # where a registry, and the machine's store, keeps the images of targets
_PROOF = Proof("VerifiedImage", "verify_image")


@dataclass(frozen=True, slots=True)
class VerifiedImage:
    """The image of a target that may be mounted: what was signed, and the publisher's signature of
    each layer's root hash."""

    target: Target
    manifest: Manifest
    signatures: Mapping[Digest, bytes]
    proof: InitVar[Proof | None] = None

    def __post_init__(self, proof: Proof | None) -> None:
        _PROOF.require(proof)

    @property
    def name(self) -> str:
        """The image for messages."""
        return image_name(self.target)

    @property
    def config(self) -> Descriptor:
        """The configuration."""
        return self.manifest.config

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """The layers: one, or as many as ``layers_of`` says of this service."""
        return self.manifest.layers


def image_name(target: Target) -> str:
    """Return what messages call the image of a target."""
    return f"image of {target.service_name}"


def verify_image(repository: Repository, target: Target, publisher: Publisher) -> VerifiedImage:
    """Return the image of a target of a verified manifest that ``publisher`` signed.

    Digest and size are those that were signed, each layer can be mounted under dm-verity, and the
    publisher signed its root hash. The layer itself is checked when it is read or copied.

    Raises: MissingError, TransferError, DigestError, DocumentError, VerificationError,
    SignatureError.
    """
    manifest = verify_target(repository, target)
    signatures = root_hash_signatures(repository, target, manifest, publisher)
    require_signatures(manifest, signatures, image_name(target))
    return VerifiedImage(target, manifest, signatures, _PROOF)


def verify_target(repository: Repository, target: Target) -> Manifest:
    """Return the image manifest of a target of a verified manifest; nobody looked at signatures.

    Raises: MissingError, TransferError, DigestError, DocumentError, VerificationError.
    """
    name = image_name(target)
    descriptor, data = repository.manifest(str(target.image))
    named = images.Named(target, data)
    for rule in images.NAMED:
        rule.require(named, name)
    manifest = parse_manifest(data, name=name, media_type=descriptor.media_type)
    images.check_image(manifest, name, target.service_name)
    return manifest


def read_config(repository: Repository, manifest: Manifest, name: str) -> ImageConfig:
    """Return what the image asks for, of which a container is to be made.

    Raises: MissingError, TransferError, DigestError, VerificationError (too large), DocumentError
    (nothing to run, ...).
    """
    images.CONFIG_SIZE.require(manifest, name)
    data = repository.blob(manifest.config, limit=MAX_CONFIG)
    return parse_image_config(data, name=f"configuration of the {name}")


def check_config(repository: Repository, manifest: Manifest, name: str) -> None:
    """Check what an image says of itself that may be one that is only mounted.

    Raises: as ``read_config``.
    """
    images.CONFIG_SIZE.require(manifest, name)
    data = repository.blob(manifest.config, limit=MAX_CONFIG)
    check_image_config(data, name=f"configuration of the {name}")


def root_hash_signatures(
    repository: Repository, target: Target, manifest: Manifest, publisher: Publisher
) -> dict[Digest, bytes]:
    """Return by layer the PKCS#7 signature of its root hash by ``publisher``.

    ``manifest`` is what ``verify_target`` returned, ``publisher`` who signed the document that
    names the target. A layer for which there is none is not in the result; there cannot be two
    (``trust.verify.roothash``), and others' signatures do not count.

    Raises: TransferError.
    """
    expected = {layer.digest: root_hash_of(layer) for layer in manifest.layers}
    found: dict[Digest, bytes] = {}
    referrers = Referrers(repository, target.image, ROOT_HASH_SIGNATURE)
    for artifact in referrers.manifests():
        # As many as the image has layers: more is not ours, and each costs a request.
        for entry in artifact.layers[: len(manifest.layers)]:
            digest = _claimed_layer(entry, expected)
            if digest is None or digest in found:
                continue
            blob = referrers.blob(entry)
            if blob is not None and is_signature(blob, expected[digest], publisher):
                found[digest] = blob
    if referrers.broken is not None and len(found) < len(expected):
        raise referrers.broken
    return found


def require_signatures(manifest: Manifest, signatures: Mapping[Digest, bytes], name: str) -> None:
    """Raise SignatureError unless ``signatures`` has one for each layer of the image."""
    roothash.SIGNED.require(roothash.Signed(manifest, signatures), name)


def _claimed_layer(entry: Descriptor, expected: Mapping[Digest, RootHash]) -> Digest | None:
    if entry.media_type != PKCS7:
        return None
    try:
        digest = Digest.parse(entry.annotations.get(LAYER_DIGEST, ""))
    except DigestError:
        return None
    if expected.get(digest) != entry.annotations.get(LAYER_ROOT_HASH, "none"):
        return None
    return digest
