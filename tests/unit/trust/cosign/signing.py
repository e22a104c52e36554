"""A key of this test run, and bundles that it signs, made without the code that reads them."""

from __future__ import annotations

import base64
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from machineos.core.digest import Digest
from machineos.trust.cosign.key import CosignKey

PRIVATE = Ed25519PrivateKey.generate()
PUBLIC = CosignKey("k.pub", PRIVATE.public_key())
IN_TOTO = "application/vnd.in-toto+json"
COSIGN = "https://sigstore.dev/cosign/sign/v1"


def statement(*digests: Digest, kind: str = COSIGN) -> dict[str, Any]:
    """What is said of images."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {one.algorithm: one.hex}} for one in digests],
        "predicateType": kind,
        "predicate": {},
    }


def bundle(body: object, kind: str = IN_TOTO) -> dict[str, Any]:
    """A bundle with this statement, signed by ``PRIVATE``."""
    payload = json.dumps(body).encode()
    encoded = b" ".join(
        (b"DSSEv1", str(len(kind)).encode(), kind.encode(), str(len(payload)).encode(), payload)
    )
    return {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": "x"}},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": kind,
            "signatures": [{"sig": base64.b64encode(PRIVATE.sign(encoded)).decode()}],
        },
    }
