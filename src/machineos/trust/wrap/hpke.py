"""Hybrid public key encryption (RFC 9180), base mode, one message for each setup.

The suite is DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305. Keys are 32 bytes as RFC
7748 writes them; what is sealed is the ephemeral public key (32 bytes), the ciphertext, and its tag
(16 bytes). ``info`` and ``aad`` bind a message to its purpose and to its object: who opens has to
say the same. Shared by the initrd, which opens, and the running system, which only seals.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from machineos.core.secret import Secret
from machineos.errors import VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable

KEY_SIZE = 32
OVERHEAD = KEY_SIZE + 16
_NONCE_SIZE = 12
_VERSION = b"HPKE-v1"
_KEM = b"KEM\x00\x20"
_SUITE = b"HPKE\x00\x20\x00\x01\x00\x03"
_BASE = b"\x00"


def derive_private(material: Secret) -> Secret:
    """Return the private key that follows from 32 or more secret bytes (section 7.1.3)."""
    extracted = _extract(_KEM, b"", b"dkp_prk", material.view())
    return Secret(_expand(_KEM, extracted, b"sk", b"", KEY_SIZE))


def public_key(private: Secret) -> bytes:
    """Return the public key of a private one."""
    return X25519PrivateKey.from_private_bytes(private.view()).public_key().public_bytes_raw()


def seal(
    public: bytes, plain: Secret, *, info: bytes, aad: bytes, random: Callable[[int], bytes]
) -> bytes:
    """Return ``plain`` so that only the owner of the private key can read it (section 6.1).

    ``random`` gives the ephemeral private key. Raises: VerificationError (no public key).
    """
    ephemeral = X25519PrivateKey.from_private_bytes(random(KEY_SIZE))
    sent = ephemeral.public_key().public_bytes_raw()
    cipher, nonce = _setup(ephemeral, public, sent + public, info)
    return sent + cipher.encrypt(nonce, plain.view(), aad)


def open_sealed(private: Secret, sealed: bytes, *, info: bytes, aad: bytes) -> Secret:
    """Return what was sealed to this private key's public one, for this ``info`` and ``aad``.

    Raises: VerificationError (it was not, or was changed).
    """
    if len(sealed) < OVERHEAD:
        raise VerificationError("a sealed secret is cut short")
    sent, encrypted = sealed[:KEY_SIZE], sealed[KEY_SIZE:]
    key = X25519PrivateKey.from_private_bytes(private.view())
    context = sent + key.public_key().public_bytes_raw()
    cipher, nonce = _setup(key, sent, context, info)
    try:
        return Secret(cipher.decrypt(nonce, encrypted, aad))
    except InvalidTag as error:
        raise VerificationError("a sealed secret was not sealed for this machine") from error


def _setup(
    own: X25519PrivateKey, peer: bytes, context: bytes, info: bytes
) -> tuple[ChaCha20Poly1305, bytes]:
    """Return cipher and first nonce (sections 4.1 and 5.1). Raises: VerificationError."""
    try:
        shared = own.exchange(X25519PublicKey.from_public_bytes(peer))
    except ValueError as error:  # of another size, or of small order: the result would be known
        raise VerificationError("a sealed secret names no public key") from error
    extracted = _extract(_KEM, b"", b"eae_prk", shared)
    secret = _expand(_KEM, extracted, b"shared_secret", context, KEY_SIZE)
    schedule = (
        _BASE
        + _extract(_SUITE, b"", b"psk_id_hash", b"")
        + _extract(_SUITE, b"", b"info_hash", info)
    )
    final = _extract(_SUITE, secret, b"secret", b"")
    key = _expand(_SUITE, final, b"key", schedule, KEY_SIZE)
    nonce = _expand(_SUITE, final, b"base_nonce", schedule, _NONCE_SIZE)
    return ChaCha20Poly1305(key), nonce


def _extract(suite: bytes, salt: bytes, label: bytes, material: bytes | memoryview) -> bytes:
    """LabeledExtract of section 4; no salt is a key of zeros, which HMAC pads to by itself."""
    return hmac.digest(salt, b"".join((_VERSION, suite, label, material)), hashlib.sha256)


def _expand(suite: bytes, key: bytes, label: bytes, info: bytes, size: int) -> bytes:
    """LabeledExpand of section 4, for what fits into one block of HKDF (32 bytes)."""
    labeled = size.to_bytes(2, "big") + _VERSION + suite + label + info
    return hmac.digest(key, labeled + b"\x01", hashlib.sha256)[:size]
