"""The configuration volume: made by the installer, opened by the initrd of this machine only.

The LUKS2 header is authenticated before cryptsetup sees it: a MAC under a key derived from the
sealed configuration key lies behind the header, at ``RECORD_OFFSET``. So a header with a null
cipher, a half-done re-encryption, or a passphrase of somebody else's is refused unread
(CVE-2025-59054, CVE-2021-4122), and a second disk with the same partition name is just a candidate
that does not match. The verified copy, not the disk, is what cryptsetup is given.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import TYPE_CHECKING

from machineos.core.files import write_atomic
from machineos.errors import BootError, VerificationError
from machineos.host.disk import luks

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from machineos.host.disk.blockdev import Partition

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


def format_config(key: bytes, device: Path, *, uuid: str) -> luks.LuksVolume:
    """Make the volume on ``device``, whose content is lost, and authenticate its header, durably.

    Raises: ToolError.
    """
    volume = luks.LuksVolume(device, NAME)
    luks.format_volume(volume, passphrase(key), uuid=uuid)
    write_record(key, device)
    return volume


def write_record(key: bytes, device: Path) -> None:
    """Authenticate the header that is on ``device`` now, durably."""
    descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        area = os.pread(descriptor, RECORD_OFFSET, 0)
        os.pwrite(descriptor, header_record(key, area), RECORD_OFFSET)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def passphrase(key: bytes) -> bytes:
    """Return what opens the key slot."""
    return derive(key, b"luks-passphrase").hex().encode()


def open_config(key: bytes, candidates: Iterable[Partition], scratch: Path) -> Partition:
    """Open the first candidate whose header is ours and return it.

    Raises: BootError naming every candidate and why it was refused.
    """
    reasons = []
    for partition in candidates:
        try:
            header = luks.read_header(partition.device)
            record = header[RECORD_OFFSET : RECORD_OFFSET + RECORD_SIZE]
            check_header(key, header[:RECORD_OFFSET], record, what=str(partition.device))
            copy = scratch / "luks-header"
            write_atomic(copy, header, mode=0o600)
            volume = luks.LuksVolume(partition.device, NAME)
            luks.open_volume(volume, passphrase(key), header=copy)
        except VerificationError as error:
            reasons.append(error.message)
        except OSError as error:  # a disk that cannot be read must not hide the one that can
            reasons.append(f"{partition.device}: {error.strerror}")
        else:
            return partition
    if not reasons:
        raise BootError(f"no disk has a partition {LABEL}: nothing is installed here")
    raise BootError("no configuration volume of this machine: " + "; ".join(reasons))
