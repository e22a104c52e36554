"""The images that a verified manifest names: what must hold before one is stored or mounted.

The chain continues here: the signed document names the digest and size of an image manifest, which
names its layers and, in their annotations, the dm-verity root hashes. The signatures of these root
hashes come as an artifact that refers to the image (``artifacts.root_hash_artifact``); the kernel
alone judges them; what is returned here is what the publisher made, byte for byte, so that nobody
else's can stand in its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from machineos.core.digest import Digest
from machineos.document.product.artifacts import (
    LAYER_DIGEST,
    LAYER_ROOT_HASH,
    PKCS7,
    ROOT_HASH_SIGNATURE,
    Referrers,
)
from machineos.errors import DigestError, MachineOSError, VerificationError
from machineos.oci.model.atomfs import parse_layer_type, root_hash_of
from machineos.oci.model.documents import CONFIG, Manifest, parse_manifest
from machineos.trust.verify.pkcs7 import detached

if TYPE_CHECKING:
    from machineos.document.product.install import Target
    from machineos.oci.model.documents import Descriptor
    from machineos.oci.model.repository import Repository
    from machineos.trust.verify.chain import Publisher

REPOSITORY = "mos"  # where a registry, and the machine's store, keeps the images of targets


def verify_target(repository: Repository, target: Target) -> Manifest:
    """Return the image manifest of a target of a verified manifest.

    Digest and size are those that were signed, and every layer can be mounted under dm-verity. The
    layers themselves are checked when they are read or copied.

    Raises: MissingError, TransferError, DigestError, DocumentError, VerificationError.
    """
    name = f"image of {target.service_name}"
    digest = target.image
    descriptor, data = repository.manifest(str(digest))
    if len(data) != target.size:
        raise DigestError(f"{name}: {len(data)} bytes, the manifest says {target.size}")
    digest.check(data, name)
    manifest = parse_manifest(data, name=name, media_type=descriptor.media_type)
    check_image(manifest, name)
    return manifest


def check_image(manifest: Manifest, name: str) -> None:
    """Raise VerificationError unless every layer is mountable and names its root hash."""
    if manifest.config.media_type != CONFIG:
        raise VerificationError(
            f"{name}: is not an image: its configuration is {manifest.config.media_type!r:.80}"
        )
    if not manifest.layers:
        raise VerificationError(f"{name}: has no layers")
    for layer in manifest.layers:
        if parse_layer_type(layer.media_type) is None:
            raise VerificationError(
                f"{name}: layer {layer.digest} is {layer.media_type!r:.80}, "
                "not squashfs or EROFS with dm-verity"
            )
        root_hash_of(layer)


def root_hash_signatures(
    repository: Repository, target: Target, manifest: Manifest, publisher: Publisher
) -> dict[Digest, bytes]:
    """Return by layer the PKCS#7 signature of its root hash by ``publisher``.

    ``manifest`` is what ``verify_target`` returned, ``publisher`` who signed the document that
    names the target. A layer for which there is none is not in the result; there cannot be two
    (``trust.pkcs7``), and others' signatures do not count.

    Raises: TransferError.
    """
    layers = {layer.digest: layer for layer in manifest.layers}
    expected = {digest: root_hash_of(layer) for digest, layer in layers.items()}
    found: dict[Digest, bytes] = {}
    referrers = Referrers(repository, target.image, ROOT_HASH_SIGNATURE)
    for artifact in referrers.manifests():
        # As many as the image has layers: more is not ours, and each costs a request.
        for entry in artifact.layers[: len(manifest.layers)]:
            digest = _claimed_layer(entry, expected)
            if digest is None or digest in found:
                continue
            blob = referrers.blob(entry)
            if blob is not None and signed_by(blob, layers[digest], publisher):
                found[digest] = blob
    if referrers.broken is not None and len(found) < len(expected):
        raise referrers.broken
    return found


def _claimed_layer(entry: Descriptor, expected: dict[Digest, str]) -> Digest | None:
    if entry.media_type != PKCS7:
        return None
    try:
        digest = Digest.parse(entry.annotations.get(LAYER_DIGEST, ""))
    except MachineOSError:
        return None
    if expected.get(digest) != entry.annotations.get(LAYER_ROOT_HASH, "none"):
        return None
    return digest


def signed_by(candidate: bytes, layer: Descriptor, publisher: Publisher) -> bool:
    """Whether a candidate is the publisher's PKCS#7 of the layer's root hash, and nothing else.

    The right signature in a wrong wrapping does not count: the kernel would refuse it, and whoever
    may push to the registry could put it before the good one.
    """
    certificate = x509.load_der_x509_certificate(publisher.certificate_der)
    key = certificate.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        return False
    signature = candidate[-(key.key_size // 8) :]
    if candidate != detached(certificate, signature):
        return False
    try:
        key.verify(signature, root_hash_of(layer).encode(), padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    return True
