"""A public key that signed an image, as ``cosign public-key`` prints it.

ECDSA on P-256, P-384 and P-521, RSA (PKCS#1 v1.5) of 2048 to 8192 bits, Ed25519. The digest is the
one that cosign takes for the key: cosign 3 that of the curve's size, before it SHA-256 for all.
Ed25519ph, which cosign 3 writes with an Ed25519 key and cannot read itself, is not among them.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from machineos.errors import SignatureError

_PublicKey: TypeAlias = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey
_BEGIN = (b"-----BEGIN PUBLIC KEY-----", b"-----BEGIN RSA PUBLIC KEY-----")
_MAX_PEM = 16 << 10
_MIN_BITS, _MAX_BITS = 2048, 8192
_HASHES: dict[str, tuple[hashes.HashAlgorithm, ...]] = {
    "secp256r1": (hashes.SHA256(),),
    "secp384r1": (hashes.SHA384(), hashes.SHA256()),
    "secp521r1": (hashes.SHA512(), hashes.SHA256()),
}
_OTHERS = {
    b"PRIVATE KEY-----": "is a private key",
    b"BEGIN PGP ": "is a key of GPG, whose signatures are not supported",
    b"BEGIN CERTIFICATE-----": "is a certificate, not a public key",
}


@dataclass(frozen=True, slots=True)
class CosignKey:
    """A public key; ``name`` is where it is from, for messages."""

    name: str
    key: _PublicKey

    def signed(self, data: bytes, signature: bytes) -> bool:
        """Whether ``signature`` is one of exactly these bytes by this key."""
        return any(_verifies(self.key, data, signature, one) for one in _algorithms(self.key))

    def signed_note(self, data: bytes, note: str) -> bool:
        """The same of a signature in base64, which may be none at all."""
        try:
            return self.signed(data, base64.b64decode(note, validate=True))
        except (binascii.Error, ValueError):
            return False


def _algorithms(key: _PublicKey) -> tuple[hashes.HashAlgorithm, ...]:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return _HASHES[key.curve.name]
    return (hashes.SHA256(),)


def _verifies(
    key: _PublicKey, data: bytes, signature: bytes, algorithm: hashes.HashAlgorithm
) -> bool:
    try:
        match key:
            case ed25519.Ed25519PublicKey():  # which has a digest of its own
                key.verify(signature, data)
            case rsa.RSAPublicKey():
                key.verify(signature, data, padding.PKCS1v15(), algorithm)
            case _:
                key.verify(signature, data, ec.ECDSA(algorithm))
    except InvalidSignature:
        return False
    return True


def parse_key(pem: bytes, *, name: str) -> CosignKey:
    """Return the public key of a PEM file. Raises: SignatureError, which says what else it is."""
    if not any(mark in pem for mark in _BEGIN) or len(pem) > _MAX_PEM:
        what = next((said for mark, said in _OTHERS.items() if mark in pem), "is no public key")
        raise SignatureError(
            f"{name} {what}",
            hint="signed-by names a public key in PEM: cosign public-key --key KEY, or "
            "openssl x509 -in CERT -noout -pubkey",
        )
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SignatureError(f"{name} is no public key that can be read") from error
    if isinstance(key, rsa.RSAPublicKey) and _MIN_BITS <= key.key_size <= _MAX_BITS:
        return CosignKey(name, key)
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _HASHES:
        return CosignKey(name, key)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return CosignKey(name, key)
    raise SignatureError(
        f"{name} is a key of another kind than ECDSA P-256, P-384, P-521, RSA of "
        f"{_MIN_BITS} to {_MAX_BITS} bits, and Ed25519"
    )
