"""Signatures in sigstore's bundle, as cosign 3 writes them, checked against a key and nothing else.

Follows the bundle format 0.3 (sigstore/protobuf-specs), DSSE 1 (secure-systems-lab/dsse) and the
in-toto statement 1. What a transparency log says in it is not asked. Invariant: the statement that
is read is the one whose signature was checked.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from machineos.core.digest import Digest
from machineos.core.jsondoc import parse_json
from machineos.errors import DigestError, SignatureError

if TYPE_CHECKING:
    from machineos.trust.cosign.key import CosignKey

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
MAX_BUNDLE = 1 << 20
SIGNED = "https://sigstore.dev/cosign/sign/v1"
_STATEMENT = "https://in-toto.io/Statement/v1"
_IN_TOTO = "application/vnd.in-toto+json"
_MOST = 16  # signatures of one envelope, subjects of one statement


def verify_bundle(data: bytes, key: CosignKey) -> frozenset[Digest]:
    """Return the digests of what a bundle signs as an image.

    Raises: SignatureError (not by this key, or of a kind that is not supported, which is named),
    DocumentError.
    """
    body = parse_json(data, name="a bundle", limit=MAX_BUNDLE)
    kind = body.get("mediaType") if isinstance(body, dict) else None
    if kind != BUNDLE:
        raise SignatureError(f"a bundle of the type {kind!r:.80} is not supported, only {BUNDLE}")
    if "publicKey" not in _mapping(body, "verificationMaterial"):
        raise SignatureError("a keyless signature (a certificate of Fulcio) is not supported")
    envelope = _mapping(body, "dsseEnvelope")
    if not envelope:
        raise SignatureError("a bundle without a statement signs a file, not an image")
    payload, kind = _decoded(envelope.get("payload")), envelope.get("payloadType")
    if kind != _IN_TOTO:
        raise SignatureError(f"a bundle holds {kind!r:.80}, which is no statement")
    signatures = envelope.get("signatures")
    given = signatures[:_MOST] if isinstance(signatures, list) else []
    signed = _encoded(_IN_TOTO.encode(), payload)
    if not any(
        key.signed(signed, _decoded(one.get("sig"))) for one in given if isinstance(one, dict)
    ):
        raise SignatureError(f"a bundle is not signed by {key.name}")
    return _subjects(payload)


def _subjects(payload: bytes) -> frozenset[Digest]:
    body = parse_json(payload, name="the statement of a bundle", limit=MAX_BUNDLE)
    said = body if isinstance(body, dict) else {}
    if (said.get("_type"), said.get("predicateType")) != (_STATEMENT, SIGNED):
        raise SignatureError(
            f"a statement says {said.get('predicateType')!r:.80} of an image, not that it is signed"
        )
    subjects = said.get("subject")
    found: set[Digest] = set()
    for subject in subjects[:_MOST] if isinstance(subjects, list) else []:
        for algorithm, value in _mapping(subject, "digest").items():
            try:
                found.add(Digest(algorithm, value if isinstance(value, str) else ""))
            except DigestError:
                continue  # of an algorithm that names no manifest
    return frozenset(found)


def _encoded(kind: bytes, payload: bytes) -> bytes:
    """Return what a DSSE signature is over (its "pre-authentication encoding")."""
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _mapping(body: object, key: str) -> dict[str, Any]:
    value = body.get(key) if isinstance(body, dict) else None
    return value if isinstance(value, dict) else {}


def _decoded(value: object) -> bytes:
    try:
        return base64.b64decode(value if isinstance(value, str) else "", validate=True)
    except (binascii.Error, ValueError) as error:
        raise SignatureError("a bundle holds something that is not base64") from error
