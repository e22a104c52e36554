"""What cosign signs of an image: the digest of its manifest, in the form of simple signing.

Follows containers/image, "atomic signature", as cosign's SIGNATURE_SPEC.md uses it. Invariant: only
bytes whose signature was checked are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from machineos.core.digest import Digest
from machineos.core.jsondoc import parse_json
from machineos.errors import DigestError, SignatureError

if TYPE_CHECKING:
    from machineos.trust.cosign.key import CosignKey

SIMPLE_SIGNING = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE_NOTE = "dev.cosignproject.cosign/signature"
MAX_PAYLOAD = 64 << 10
_TYPE = "cosign container image signature"


def make_payload(digest: Digest, reference: str) -> bytes:
    """Return what is signed of the manifest ``digest``, byte for byte as cosign writes it;
    ``reference`` is the name of its repository."""
    identity = {"docker-reference": reference}
    image = {"docker-manifest-digest": str(digest)}
    critical = {"identity": identity, "image": image, "type": _TYPE}
    return msgspec.json.encode({"critical": critical, "optional": None})


def verify_payload(payload: bytes, signature: str, key: CosignKey) -> Digest:
    """Return the digest that a payload says, with its signature in base64.

    Which repository it names is not compared: an image may be copied, its digest stays.
    Raises: SignatureError.
    """
    if len(payload) > MAX_PAYLOAD or not key.signed_note(payload, signature):
        raise SignatureError(f"a signature is not by {key.name}")
    body = parse_json(payload, name="what a signature is over", limit=MAX_PAYLOAD)
    critical = _inner(body, "critical")
    if critical.get("type") != _TYPE:
        raise SignatureError(f"a signature is over {critical.get('type')!r:.80}, which is no image")
    said = _inner(critical, "image").get("docker-manifest-digest")
    try:
        return Digest.parse(said if isinstance(said, str) else "")
    except DigestError as error:
        raise SignatureError("a signature is over something without a digest") from error


def _inner(body: object, key: str) -> dict[str, Any]:
    value = body.get(key) if isinstance(body, dict) else None
    return value if isinstance(value, dict) else {}
