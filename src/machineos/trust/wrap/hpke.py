"""Sealing to a public key: HPKE of RFC 9180 in base mode, single-shot.

One suite: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20Poly1305 (sections 7.1 to 7.3). What is
sealed is ``enc`` (32 bytes) and the ciphertext, one after the other. Whoever opens it knows that
somebody with the public key made it, and nothing about who.
Shared with the initrd.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from machineos.core.secret import Secret
from machineos.errors import VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable

KEY_SIZE = 32  # of a private and a public key, and of ``enc``
OVERHEAD = KEY_SIZE + 16
_KEM, _KDF, _AEAD = 0x0020, 0x0001, 0x0003
_KEM_SUITE = b"KEM" + _KEM.to_bytes(2, "big")
_SUITE = b"HPKE" + b"".join(each.to_bytes(2, "big") for each in (_KEM, _KDF, _AEAD))
_BASE = b"\0"
_NONCE_SIZE = 12


def derive_private_key(ikm: Secret) -> Secret:
    """Return a private key made of at least 32 random bytes (DeriveKeyPair, section 7.1.3)."""
    prk = _extract(_KEM_SUITE, b"", b"dkp_prk", ikm.view())
    return Secret(_expand(_KEM_SUITE, prk, b"sk", b"", KEY_SIZE))


def public_key(private_key: Secret) -> bytes:
    """Return the public key (32 bytes) of a private one."""
    return _raw(X25519PrivateKey.from_private_bytes(private_key.view()).public_key())


def seal(
    recipient: bytes,
    plaintext: Secret,
    *,
    info: bytes,
    random: Callable[[int], bytes],
) -> bytes:
    """Return ``plaintext`` sealed to the public key ``recipient``, for the purpose ``info``.

    ``random`` returns that many bytes that nobody else knows. Raises: VerificationError (no key).
    """
    ephemeral = X25519PrivateKey.from_private_bytes(random(KEY_SIZE))
    enc = _raw(ephemeral.public_key())
    shared = _agree(ephemeral, recipient, enc + recipient)
    key, nonce = _schedule(shared, info)
    return enc + ChaCha20Poly1305(key).encrypt(nonce, plaintext.view(), b"")


def open_sealed(private_key: Secret, sealed: bytes, *, info: bytes) -> Secret:
    """Return what ``seal`` was given. Raises: VerificationError (for another key or purpose, or
    changed)."""
    enc, ciphertext = sealed[:KEY_SIZE], sealed[KEY_SIZE:]
    if len(sealed) < OVERHEAD:
        raise VerificationError(f"what is sealed is too short: {len(sealed)} bytes")
    own = X25519PrivateKey.from_private_bytes(private_key.view())
    key, nonce = _schedule(_agree(own, enc, enc + _raw(own.public_key())), info)
    try:
        return Secret(ChaCha20Poly1305(key).decrypt(nonce, ciphertext, b""))
    except InvalidTag as error:
        raise VerificationError("it is not sealed to this machine, or was changed") from error


def _agree(own: X25519PrivateKey, other: bytes, context: bytes) -> bytes:
    """Return the shared secret (ExtractAndExpand, section 4.1)."""
    try:
        dh = own.exchange(X25519PublicKey.from_public_bytes(other))
    except ValueError as error:  # not 32 bytes, or a point of small order
        raise VerificationError("what is sealed names no key of X25519") from error
    prk = _extract(_KEM_SUITE, b"", b"eae_prk", dh)
    return _expand(_KEM_SUITE, prk, b"shared_secret", context, KEY_SIZE)


def _schedule(shared: bytes, info: bytes) -> tuple[bytes, bytes]:
    """Return key and nonce of the first message (KeySchedule, section 5.1)."""
    context = (
        _BASE
        + _extract(_SUITE, b"", b"psk_id_hash", b"")
        + _extract(_SUITE, b"", b"info_hash", info)
    )
    secret = _extract(_SUITE, shared, b"secret", b"")
    key = _expand(_SUITE, secret, b"key", context, KEY_SIZE)
    return key, _expand(_SUITE, secret, b"base_nonce", context, _NONCE_SIZE)


def _extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes | memoryview) -> bytes:
    """LabeledExtract (section 4)."""
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, hashlib.sha256)


def _expand(suite: bytes, prk: bytes, label: bytes, info: bytes, size: int) -> bytes:
    """LabeledExpand (section 4); ``size`` is at most 32, one block of HKDF-Expand (RFC 5869)."""
    whole = size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(prk, whole + b"\1", hashlib.sha256)[:size]


def _raw(key: X25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)
