from __future__ import annotations

import base64

import pytest

from machineos.core.digest import Digest
from machineos.errors import DocumentError, MachineOSError, SignatureError
from machineos.trust.cosign.key import parse_key
from machineos.trust.cosign.simple import (
    MAX_PAYLOAD,
    SIGNATURE_NOTE,
    SIMPLE_SIGNING,
    make_payload,
    verify_payload,
)
from unit.trust.cosign.signing import PRIVATE, PUBLIC
from vectors.cosign import DIGEST, KEYS, SIGNATURES

GOOD = [name for name in SIGNATURES if "bundle" not in name and "ed25519ph" not in name]


@pytest.mark.parametrize("name", GOOD)
def test_what_cosign_signed(name: str) -> None:
    one = SIGNATURES[name]
    assert [layer.media_type for layer in one.document.layers] == [SIMPLE_SIGNING]
    note = one.document.layers[0].annotations[SIGNATURE_NOTE]
    key = parse_key(KEYS[one.key], name="k.pub")
    assert verify_payload(one.blobs[0], note, key) == DIGEST
    other = parse_key(KEYS["rsa" if one.key == "p256" else "p256"], name="other.pub")
    with pytest.raises(SignatureError, match="is not by other"):
        verify_payload(one.blobs[0], note, other)
    with pytest.raises(SignatureError, match="is not by k"):
        verify_payload(one.blobs[0].replace(DIGEST.hex.encode(), b"0" * 64), note, key)


def test_an_ed25519ph_signature_is_not_supported() -> None:
    """No library of ours has it, and cosign itself does not verify what it wrote there."""
    one = SIGNATURES["ed25519ph tag"]
    note = one.document.layers[0].annotations[SIGNATURE_NOTE]
    with pytest.raises(SignatureError):
        verify_payload(one.blobs[0], note, parse_key(KEYS["ed"], name="k.pub"))


def test_the_payload_is_the_one_that_cosign_writes() -> None:
    assert make_payload(DIGEST, "127.0.0.1:5077/t/k") == SIGNATURES["p256 tag"].blobs[0]


def signed(payload: bytes) -> Digest:
    return verify_payload(payload, base64.b64encode(PRIVATE.sign(payload)).decode(), PUBLIC)


def test_what_else_the_key_may_have_signed() -> None:
    good = make_payload(DIGEST, "a")
    assert signed(good) == DIGEST
    for payload, message in (
        (good.replace(b"cosign container", b"atomic container"), "which is no image"),
        (good.replace(b"docker-manifest-digest", b"digest"), "without a digest"),
        (good.replace(b"sha256:", b"md5:"), "without a digest"),
        (b"{}", "which is no image"),
        (b"[]", "which is no image"),
        (b'{"critical":[]}', "which is no image"),
        (b"a file", "is not JSON"),
        (good.replace(b'"critical"', b'"critical":{},"critical"'), "twice"),
        (good + b" " * MAX_PAYLOAD, "is not by"),
    ):
        with pytest.raises(MachineOSError, match=message) as caught:
            signed(payload)
        assert isinstance(caught.value, (SignatureError, DocumentError))
