"""The artifacts that carry a manifest: their media types, how they are made, how they are read.

Follows seed 002: the install document is the one layer of an artifact; its certificate and its
signature are artifacts whose subject is the first. The root hash signatures of an image are one
more artifact (ours), whose subject is the image. Invariant: the same input makes the same bytes.
"""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

import msgspec

from machineos.core.digest import Digest
from machineos.document.model.limits import MAX_REFERRERS as MAX_REFERRERS
from machineos.document.model.limits import MAX_SMALL as MAX_SMALL
from machineos.errors import MachineOSError, TransferError, VerificationError
from machineos.oci.model.documents import (
    EMPTY_DESCRIPTOR,
    MANIFEST,
    TITLE,
    Descriptor,
    Manifest,
    parse_manifest,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from machineos.core.word import RootHash
    from machineos.oci.model.repository import Repository

INSTALL = "application/vnd.machine.install"
CERTIFICATE = "application/vnd.machine.pubkeycrt"
SIGNATURE = "application/vnd.machine.signature"
ROOT_HASH_SIGNATURE = "application/vnd.machine.roothash.signature"
PKCS7 = "application/pkcs7-signature"
LAYER_TAR = (
    "application/vnd.oci.image.layer.v1.tar"  # what seed 002 calls certificate and signature
)
CREATED = "org.opencontainers.image.created"
LAYER_DIGEST = "io.machineos.layer.digest"
LAYER_ROOT_HASH = "io.machineos.layer.roothash"

INSTALL_TITLE = "index.json"
CERTIFICATE_TITLE = "cert.pem"
SIGNATURE_TITLE = "install.json.signed"


class Artifact(msgspec.Struct, frozen=True):
    """A manifest and the blobs that its layers name, ready to be stored."""

    manifest: Manifest
    blobs: tuple[bytes, ...]

    @property
    def data(self) -> bytes:
        """The bytes of the manifest."""
        return self.manifest.to_bytes()

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor of the manifest, the way a ``subject`` names it."""
        data = self.data
        return Descriptor(media_type=MANIFEST, digest=Digest.of(data), size=len(data))

    def store(self, repository: Repository, *, tag: str | None = None) -> Descriptor:
        """Store blobs, then the manifest. Raises: SpaceError, TransferError."""
        repository.put_blob(EMPTY_DESCRIPTOR, [b"{}"])
        for layer, blob in zip(self.manifest.layers, self.blobs, strict=True):
            repository.put_blob(layer, [blob])
        return repository.put_manifest(self.data, media_type=MANIFEST, tag=tag)


class InstallArtifacts(msgspec.Struct, frozen=True):
    """The three artifacts of a signed manifest."""

    install: Artifact
    certificate: Artifact
    signature: Artifact


def install_artifacts(
    data: bytes, signature: bytes, certificate_pem: bytes, *, created: datetime
) -> InstallArtifacts:
    """Return the three artifacts of a signed install document; ``created`` has a time zone."""
    when = {CREATED: timestamp(created)}
    install = _single(INSTALL, INSTALL, INSTALL_TITLE, data, annotations=when)
    subject = install.descriptor
    return InstallArtifacts(
        install,
        _single(CERTIFICATE, LAYER_TAR, CERTIFICATE_TITLE, certificate_pem, subject, when),
        _single(SIGNATURE, LAYER_TAR, SIGNATURE_TITLE, signature, subject, when),
    )


def root_hash_artifact(
    subject: Descriptor, signatures: tuple[tuple[Digest, RootHash, bytes], ...]
) -> Artifact:
    """Return the artifact with the root hash signatures of the image ``subject``.

    ``signatures`` has (layer digest, root hash, PKCS#7 in DER) for each layer, bottom first. There
    is no time in it: whoever publishes the image, with this key, makes the same artifact.
    """
    layers = tuple(
        Descriptor(
            media_type=PKCS7,
            digest=Digest.of(signature),
            size=len(signature),
            annotations={
                TITLE: f"{layer.hex}.p7s",
                LAYER_DIGEST: str(layer),
                LAYER_ROOT_HASH: str(root_hash),
            },
        )
        for layer, root_hash, signature in signatures
    )
    manifest = Manifest(
        media_type=MANIFEST,
        artifact_type=ROOT_HASH_SIGNATURE,
        config=EMPTY_DESCRIPTOR,
        layers=layers,
        subject=Descriptor(media_type=subject.media_type, digest=subject.digest, size=subject.size),
    )
    return Artifact(manifest, tuple(signature for _, _, signature in signatures))


def timestamp(when: datetime) -> str:
    """Return ``when`` as RFC 3339 in UTC, whole seconds."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Referrers:
    """Reads the artifacts that refer to a manifest, of one type, one by one and bounded.

    Whoever may write to a repository may add referrers, so nothing here is trusted, and a bad one
    is stepped over. ``faults`` says why for each, ``broken`` holds the first transfer error.
    """

    def __init__(self, repository: Repository, subject: Digest, artifact_type: str) -> None:
        self._repository = repository
        self._subject = subject
        self._type = artifact_type
        self.faults: list[str] = []
        self.broken: TransferError | None = None

    def manifests(self) -> Iterator[Manifest]:
        """Yield the well-formed ones of at most ``MAX_REFERRERS``. Raises: TransferError, when the
        list itself cannot be had."""
        found = self._repository.referrers(self._subject, artifact_type=self._type)
        if len(found) > MAX_REFERRERS:
            self.faults.append(f"{len(found) - MAX_REFERRERS} more were not looked at")
        for descriptor in found[:MAX_REFERRERS]:
            try:
                yield self._manifest(descriptor)
            except TransferError as error:
                self.broken = self.broken or error
                self.faults.append(error.message)
            except MachineOSError as error:
                self.faults.append(error.message)

    def blobs(self) -> Iterator[bytes]:
        """Yield the content of each different single-layer artifact. Raises: TransferError."""
        seen: set[Digest] = set()
        for manifest in self.manifests():
            if len(manifest.layers) != 1:
                self.faults.append(f"an artifact has {len(manifest.layers)} layers, not one")
            elif manifest.layers[0].digest not in seen:
                seen.add(manifest.layers[0].digest)
                blob = self.blob(manifest.layers[0])
                if blob is not None:
                    yield blob

    def blob(self, layer: Descriptor) -> bytes | None:
        """Return a small layer, None (and a fault) if it is not to be had."""
        if layer.size > MAX_SMALL:
            self.faults.append(f"{layer.digest}: is larger than {MAX_SMALL} bytes")
            return None
        try:
            return self._repository.blob(layer, limit=MAX_SMALL)
        except TransferError as error:
            self.broken = self.broken or error
            self.faults.append(error.message)
        except MachineOSError as error:
            self.faults.append(error.message)
        return None

    def _manifest(self, descriptor: Descriptor) -> Manifest:
        name = f"referrer {descriptor.digest}"
        if descriptor.size > MAX_SMALL:
            raise VerificationError(f"{name}: is larger than {MAX_SMALL} bytes")
        found, data = self._repository.manifest(str(descriptor.digest))
        descriptor.digest.check(data, name)
        manifest = parse_manifest(data, name=name, media_type=found.media_type)
        if manifest.artifact_type != self._type:
            raise VerificationError(f"{name}: is of type {manifest.artifact_type!r:.60}")
        if manifest.subject is None or manifest.subject.digest != self._subject:
            raise VerificationError(f"{name}: refers to something else")
        return manifest


def _single(
    artifact_type: str,
    media_type: str,
    title: str,
    blob: bytes,
    subject: Descriptor | None = None,
    annotations: dict[str, str] | None = None,
) -> Artifact:
    layer = Descriptor(
        media_type=media_type,
        digest=Digest.of(blob),
        size=len(blob),
        annotations={TITLE: title},
    )
    manifest = Manifest(
        media_type=MANIFEST,
        artifact_type=artifact_type,
        config=EMPTY_DESCRIPTOR,
        layers=(layer,),
        subject=subject,
        annotations=annotations or {},
    )
    return Artifact(manifest, (blob,))
