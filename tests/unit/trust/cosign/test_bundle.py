from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.core.digest import Digest
from machineos.errors import DocumentError, MachineOSError, SignatureError
from machineos.trust.cosign.bundle import BUNDLE, verify_bundle
from machineos.trust.cosign.key import parse_key
from unit.trust.cosign.signing import PUBLIC, bundle, statement
from vectors.cosign import BUNDLE_FILE, DIGEST, KEYS, SIGNATURES

OTHER = Digest("sha512", "0" * 128)


@pytest.mark.parametrize("name", [name for name in SIGNATURES if "bundle" in name])
def test_what_cosign_3_signed(name: str) -> None:
    one = SIGNATURES[name]
    assert [layer.media_type for layer in one.document.layers] == [BUNDLE]
    key = parse_key(KEYS[one.key], name="k.pub")
    assert verify_bundle(one.blobs[0], key) == {DIGEST}
    other = parse_key(KEYS["rsa" if one.key == "p256" else "p256"], name="other.pub")
    with pytest.raises(SignatureError, match="is not signed by other"):
        verify_bundle(one.blobs[0], other)


def test_a_bundle_in_a_file() -> None:
    assert verify_bundle(BUNDLE_FILE, parse_key(KEYS["p256"], name="k.pub")) == {DIGEST}


def verified(body: object) -> frozenset[Digest]:
    return verify_bundle(json.dumps(body).encode(), PUBLIC)


def changed(body: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    return {**body, "dsseEnvelope": {**body["dsseEnvelope"], key: value}}


def test_several_subjects_and_signatures() -> None:
    body = bundle(statement(DIGEST, OTHER))
    assert verified(body) == {DIGEST, OTHER}
    (good,) = body["dsseEnvelope"]["signatures"]
    assert verified(changed(body, "signatures", [{"sig": "AAAA"}, {}, good])) == {DIGEST, OTHER}
    assert verified(bundle({**statement(), "subject": [{"digest": {"md5": "0"}}, 1, {}]})) == set()
    assert verified(bundle({**statement(), "subject": {}})) == set()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "of the type None is not supported"),
        (
            {**bundle(statement(DIGEST)), "mediaType": "x;version=0.1"},
            "of the type 'x;version=0.1'",
        ),
        (
            {**bundle(statement(DIGEST)), "verificationMaterial": {"certificate": {}}},
            "keyless signature",
        ),
        ({**bundle(statement(DIGEST)), "dsseEnvelope": None}, "signs a file, not an image"),
        (bundle(statement(DIGEST), "text/plain"), "'text/plain', which is no statement"),
        (
            bundle(statement(DIGEST, kind="https://slsa.dev/provenance/v1")),
            "says 'https://slsa.dev/provenance/v1' of an image, not that it is signed",
        ),
        (bundle({**statement(DIGEST), "_type": "x"}), "not that it is signed"),
        (bundle([]), "not that it is signed"),
        (changed(bundle(statement(DIGEST)), "signatures", []), "is not signed by k.pub"),
        (changed(bundle(statement(DIGEST)), "signatures", {}), "is not signed by k.pub"),
        (changed(bundle(statement(DIGEST)), "signatures", [{"sig": "!"}]), "not base64"),
        (changed(bundle(statement(DIGEST)), "payload", "e30="), "is not signed by k.pub"),
        (changed(bundle(statement(DIGEST)), "payload", 1), "is not signed by k.pub"),
    ],
)
def test_what_is_no_signature_of_an_image(body: object, message: str) -> None:
    with pytest.raises(SignatureError, match=message):
        verified(body)


def test_the_seventeenth_signature_is_not_looked_at() -> None:
    body = bundle(statement(DIGEST))
    (good,) = body["dsseEnvelope"]["signatures"]
    with pytest.raises(SignatureError):
        verified(changed(body, "signatures", [{"sig": "AAAA"}] * 16 + [good]))


@given(st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner)
       | st.dictionaries(st.sampled_from(["mediaType", "dsseEnvelope", "payload", "signatures",
                                          "publicKey"]), inner)))  # fmt: skip
def test_nothing_breaks_it(body: object) -> None:
    with pytest.raises((SignatureError, DocumentError)):
        verified(body)


@given(st.binary(max_size=200))
def test_no_bytes_break_it(data: bytes) -> None:
    with pytest.raises(MachineOSError):
        verify_bundle(data, PUBLIC)
