from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from machineos.errors import SignatureError
from machineos.trust.cosign.key import parse_key
from vectors.cosign import KEYS

DATA = b"what is signed"


def pem(
    key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey,
    form: PublicFormat = PublicFormat.SubjectPublicKeyInfo,
) -> bytes:
    return key.public_bytes(Encoding.PEM, form)


@pytest.mark.parametrize(
    ("curve", "algorithms"),
    [
        (ec.SECP256R1(), (hashes.SHA256(),)),
        (ec.SECP384R1(), (hashes.SHA384(), hashes.SHA256())),
        (ec.SECP521R1(), (hashes.SHA512(), hashes.SHA256())),
    ],
)
def test_curves(curve: ec.EllipticCurve, algorithms: tuple[hashes.HashAlgorithm, ...]) -> None:
    private = ec.generate_private_key(curve)
    key = parse_key(pem(private.public_key()), name="k.pub")
    for algorithm in algorithms:
        signature = private.sign(DATA, ec.ECDSA(algorithm))
        assert key.signed(DATA, signature)
        assert not key.signed(DATA + b".", signature)
    assert not key.signed(DATA, private.sign(DATA, ec.ECDSA(hashes.SHA3_256())))
    for broken in (b"", b"\0", b"x" * 9000):
        assert not key.signed(DATA, broken)


def test_rsa_in_both_forms() -> None:
    private = rsa.generate_private_key(65537, 2048)
    signature = private.sign(DATA, padding.PKCS1v15(), hashes.SHA256())
    for form in (PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1):
        key = parse_key(pem(private.public_key(), form), name="k.pub")
        assert key.signed(DATA, signature)
        assert not key.signed(DATA, signature[:-1] + bytes([signature[-1] ^ 1]))
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
        assert not key.signed(DATA, private.sign(DATA, pss, hashes.SHA256()))


def test_ed25519() -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    key = parse_key(pem(private.public_key()), name="k.pub")
    assert key.signed(DATA, private.sign(DATA))
    assert not key.signed(b"", private.sign(DATA))


def test_signatures_in_base64() -> None:
    private = ed25519.Ed25519PrivateKey.generate()
    key = parse_key(pem(private.public_key()), name="k.pub")
    note = base64.b64encode(private.sign(DATA)).decode()
    assert key.signed_note(DATA, note)
    for bad in ("", note[:-1], f"{note[:8]}\n{note[8:]}", "ä", "AAAA"):
        assert not key.signed_note(DATA, bad)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is no public key"),
        (b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n", "is a private key"),
        (b"-----BEGIN PRIVATE KEY-----\n", "is a private key"),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n", "key of GPG, whose signatures are not supp"),
        (b"-----BEGIN CERTIFICATE-----\n", "is a certificate, not a public key"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "can be read"),
        (KEYS["p256"] + bytes(20000), "is no public key"),
        (pem(ec.generate_private_key(ec.SECP256K1()).public_key()), "of another kind"),
        (pem(rsa.generate_private_key(65537, 1024).public_key()), "of another kind"),
    ],
)
def test_what_is_no_such_key(data: bytes, message: str) -> None:
    with pytest.raises(SignatureError, match=message) as caught:
        parse_key(data, name="k.pub")
    assert caught.value.message.startswith("k.pub ")
