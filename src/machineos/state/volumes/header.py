"""Whose a configuration volume is: keys derived from the sealed one, and the MAC of its header.

A MAC under a key derived from the sealed configuration key lies behind the LUKS2 header, at
``RECORD_OFFSET``. So a header with a null cipher, a half-done re-encryption, or a passphrase of
somebody else's is refused unread (CVE-2025-59054, CVE-2021-4122). Touches nothing (ADR 0005).
"""

from __future__ import annotations

import hashlib
import hmac

from machineos.core.secret import Secret
from machineos.errors import VerificationError

LABEL = "machine-config"
NAME = "machine-config"
RECORD_OFFSET = 1 << 20
_MAGIC = b"machineos-luks-header-1\0"
RECORD_SIZE = len(_MAGIC) + 32
HEADER_SIZE = RECORD_OFFSET + RECORD_SIZE  # all that is looked at before it is known whose it is
_DIGITS = b"0123456789abcdef"


def derive(key: Secret, purpose: bytes) -> Secret:
    """Return a key of 32 bytes for one purpose (HKDF-Expand of RFC 5869, one block)."""
    return Secret(hmac.digest(key.view(), b"machineos " + purpose + b"\x01", hashlib.sha256))


def passphrase(key: Secret) -> Secret:
    """Return what opens the key slot; who used it overwrites it."""
    raw = derive(key, b"luks-passphrase")
    made = hexadecimal(raw)
    raw.wipe()
    return made


def hexadecimal(raw: Secret) -> Secret:
    """Return a secret in hexadecimal, which a file or a prompt can hold; no other copy stays."""
    digits = bytearray()
    for byte in raw.view():  # hex() would leave a text that nobody can overwrite
        digits += bytes((_DIGITS[byte >> 4], _DIGITS[byte & 15]))
    made = Secret(digits)
    digits[:] = bytes(len(digits))
    return made


def header_record(key: Secret, area: bytes) -> bytes:
    """Return the record that authenticates a header; ``area`` is what precedes RECORD_OFFSET."""
    derived = derive(key, b"luks-header")
    record = _MAGIC + hmac.digest(derived.view(), area, hashlib.sha256)
    derived.wipe()
    return record


def check_header(key: Secret, area: bytes, record: bytes, *, what: str) -> None:
    """Raise VerificationError unless the header is the one that this machine wrote."""
    if not hmac.compare_digest(header_record(key, area), record):
        raise VerificationError(f"{what}: its LUKS header was not written by this machine")
