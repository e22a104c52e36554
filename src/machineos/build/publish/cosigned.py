"""The signature beside our own, for whoever checks what we publish with ``cosign verify --key``.

Same key, another form: cosign's simple signing payload over the digest of the install artifact's
manifest, under the tag ``sha256-<hex>.sig`` (cosign's SIGNATURE_SPEC.md), and as a referrer, so
that it is copied with what it signs. Machines do not read it.

Invariant: what others have signed stays; the same input gives the same bytes (RSA, PKCS#1 v1.5),
and a signature of ours that is there already is not written again.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from machineos.build.foreign.signed import signature_tag
from machineos.core.digest import Digest
from machineos.errors import DocumentError, MissingError, VerificationError
from machineos.oci.model.documents import (
    CONFIG,
    MANIFEST,
    Descriptor,
    Manifest,
    parse_document,
)
from machineos.trust.cosign.key import parse_key
from machineos.trust.cosign.simple import (
    MAX_PAYLOAD,
    SIGNATURE_NOTE,
    SIMPLE_SIGNING,
    make_payload,
)

if TYPE_CHECKING:
    from machineos.oci.model.repository import Repository
    from machineos.trust.cosign.key import CosignKey
    from machineos.trust.keys.signer import Signer

ARTIFACT = "application/vnd.dev.cosign.artifact.sig.v1+json"
_NEVER = "0001-01-01T00:00:00Z"  # what cosign writes where it knows no time
_MOST = 63  # signatures of others that are kept


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A signature of the manifest ``subject``: what is signed, and the layer that says it."""

    subject: Descriptor
    payload: bytes
    layer: Descriptor
    key: CosignKey

    def store(self, repository: Repository) -> None:
        """Write it beside the manifest, unless it is there. Raises: TransferError, SpaceError."""
        tag = signature_tag(self.subject.digest)
        others = _signatures(repository, tag)
        if any(self._is_ours(layer) for layer in others):
            return
        kept = tuple(layer for layer in others if layer.digest != self.layer.digest)[-_MOST:]
        layers = (*kept, self.layer)
        config = _config(layers)
        described = Descriptor(media_type=CONFIG, digest=Digest.of(config), size=len(config))
        manifest = Manifest(
            media_type=MANIFEST,
            artifact_type=ARTIFACT,
            config=described,
            layers=layers,
            subject=self.subject,
        )
        repository.put_blob(self.layer, (self.payload,))
        repository.put_blob(described, (config,))
        repository.put_manifest(manifest.to_bytes(), media_type=MANIFEST, tag=tag)

    def _is_ours(self, layer: Descriptor) -> bool:
        note = layer.annotations.get(SIGNATURE_NOTE, "")
        return layer.digest == self.layer.digest and self.key.signed_note(self.payload, note)


def cosign(subject: Descriptor, signer: Signer, name: str) -> Cosigned:
    """Return the signature of the manifest ``subject`` by ``signer``.

    ``name`` is that of its repository without the host: the same wherever it is published.
    """
    payload = make_payload(subject.digest, name)
    key = x509.load_pem_x509_certificate(signer.certificate_pem).public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    note = base64.b64encode(signer.sign(payload)).decode()
    layer = Descriptor(
        media_type=SIMPLE_SIGNING,
        digest=Digest.of(payload),
        size=len(payload),
        annotations={SIGNATURE_NOTE: note},
    )
    return Cosigned(subject, payload, layer, parse_key(pem, name="the publisher's key"))


def _signatures(repository: Repository, tag: str) -> tuple[Descriptor, ...]:
    """Return the signatures under ``tag``; what cannot be read as such gives way to ours."""
    try:
        found, data = repository.manifest(tag)
        document = parse_document(data, name=tag, media_type=found.media_type)
    except (MissingError, DocumentError, VerificationError):
        return ()
    layers = document.layers if isinstance(document, Manifest) else ()
    return tuple(
        layer
        for layer in layers
        if layer.media_type == SIMPLE_SIGNING and layer.size <= MAX_PAYLOAD
    )


def _config(layers: tuple[Descriptor, ...]) -> bytes:
    """Return the configuration of an image that is none, as cosign writes it."""
    body: dict[str, Any] = {
        "architecture": "",
        "created": _NEVER,
        "history": [{"created": _NEVER} for _ in layers],
        "os": "",
        "rootfs": {"type": "layers", "diff_ids": [str(layer.digest) for layer in layers]},
        "config": {},
    }
    return msgspec.json.encode(body)
