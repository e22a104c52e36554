"""What authenticates the configuration volume: a MAC of its LUKS2 header. Pure.

The header is authenticated before cryptsetup sees it: a MAC under a key derived from the sealed
configuration key lies behind the header, at ``RECORD_OFFSET``. So a header with a null cipher, a
half-done re-encryption, or a passphrase of somebody else's is refused unread (CVE-2025-59054,
CVE-2021-4122), and a second disk with the same partition name is just a candidate that does not
match. The verified copy, not the disk, is what cryptsetup is given.
"""

from __future__ import annotations

import hashlib
import hmac

from machineos.errors import VerificationError

LABEL = "machine-config"
NAME = "machine-config"
RECORD_OFFSET = 2 << 20
_MAGIC = b"machineos-luks-header-1\0"
RECORD_SIZE = len(_MAGIC) + 32


def derive(key: bytes, purpose: bytes) -> bytes:
    """Return a key of 32 bytes for one purpose (HKDF-Expand of RFC 5869, one block)."""
    return hmac.digest(key, b"machineos " + purpose + b"\x01", hashlib.sha256)


def header_record(key: bytes, area: bytes) -> bytes:
    """Return the record that authenticates a header; ``area`` is what precedes RECORD_OFFSET."""
    return _MAGIC + hmac.digest(derive(key, b"luks-header"), area, hashlib.sha256)


def check_header(key: bytes, area: bytes, record: bytes, *, what: str) -> None:
    """Raise VerificationError unless the header is the one that this machine wrote."""
    if not hmac.compare_digest(header_record(key, area), record):
        raise VerificationError(f"{what}: its LUKS header was not written by this machine")


def passphrase(key: bytes) -> bytes:
    """Return what opens the key slot."""
    return derive(key, b"luks-passphrase").hex().encode()
