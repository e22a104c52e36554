"""How the volumes of services are locked: keys made of the storage volume key, and a token.

Each volume is LUKS2 whose volume key is random and kept by nobody: it is sealed to this machine's
public key and lies in a token of the volume's header. The private key is made of what the TPM
seals, in the initrd, so who makes a volume at run time cannot open it at the next boot, and neither
can who copies the disk. Of the header, which root may have written, only the token is used: cipher
and place of the data are ours. Below them all is dm-integrity with a key that root can read, so it
is made apart from every other (docs/adr/0031). Touches nothing.
"""

from __future__ import annotations

import hashlib
import struct
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from machineos.core.jsondoc import parse_json
from machineos.errors import DocumentError, VerificationError
from machineos.host.disk import integrity, luks
from machineos.host.kernel.crypttable import KEY_SIZE, CryptVolume
from machineos.state.volumes.header import derive
from machineos.trust.wrap import hpke

if TYPE_CHECKING:
    from collections.abc import Callable

    from machineos.core.secret import Secret

GROUP = "machine-data"  # the partition, and the volume group on it
INTEGRITY = integrity.name_of(GROUP)  # what the partition is opened as
KIND = "machineos-sealed"  # the type of our token
_SEALED_SIZE = KEY_SIZE + hpke.OVERHEAD
# LUKS2 on-disk format, version 1.1.1, section 2.1: the binary header; JSON follows it.
_BINARY = struct.Struct(">6sHQQ48s32s64s40s48sQ184s64s")
_BINARY_SIZE = 4096
_MAGICS = {0: b"LUKS\xba\xbe", 1: b"SKUL\xba\xbe"}
HEADER_SIZE = 16 << 10  # of one of the two headers, binary and JSON
HEADERS_SIZE = 2 * HEADER_SIZE


def device_of(name: str) -> Path:
    """Return the node of a logical volume."""
    return Path("/dev") / GROUP / name


def integrity_key(storage_key: Secret) -> Secret:
    """Return the key of dm-integrity below the volumes (32 bytes); root can read it."""
    return derive(storage_key, b"volumes-integrity")


def machine_key(storage_key: Secret) -> Secret:
    """Return the private key that opens what is sealed to this machine (X25519, 32 bytes)."""
    ikm = derive(storage_key, b"volumes-hpke")
    try:
        return hpke.derive_private_key(ikm)
    finally:
        ikm.wipe()


def volume_of(device: Path, name: str, number: str) -> CryptVolume:
    """Return the volume on ``device`` as it is opened under ``name``; ``number`` is the UUID of its
    header."""
    return CryptVolume(device, name, number, luks.CIPHER, luks.HEADER_SIZE)


def make_token(
    recipient: bytes, key: Secret, name: str, *, random: Callable[[int], bytes]
) -> bytes:
    """Return the token (JSON) with the key of the volume ``name`` sealed to the machine with this
    public key. Raises: VerificationError (it is no key)."""
    sealed = hpke.seal(recipient, key, info=_info(name), random=random)
    return f'{{"type":"{KIND}","keyslots":[],"sealed":"{sealed.hex()}"}}'.encode()


def open_token(private_key: Secret, sealed: bytes, name: str) -> Secret:
    """Return the key of the volume ``name``. Raises: VerificationError."""
    try:
        return hpke.open_sealed(private_key, sealed, info=_info(name))
    except VerificationError as error:
        raise error.about(f"volume {name}") from error


class Token(msgspec.Struct, frozen=True):
    """What the header of a volume says of it: its UUID, and its key as it was sealed."""

    uuid: str
    sealed: bytes


def read_token(area: bytes, *, what: str) -> Token:
    """Return the token of a LUKS2 header; ``area`` is the first HEADERS_SIZE bytes of the volume,
    which root may have written.

    Of the two headers the newer one counts whose checksum fits, as for cryptsetup.
    Raises: VerificationError.
    """
    found = [_read(area, number) for number in _MAGICS]
    good = [each for each in found if each is not None]
    if not good:
        raise VerificationError(f"{what}: it has no LUKS2 header")
    _, number, data = max(good, key=lambda each: each[0])
    try:
        sealed = _sealed(parse_json(data, name=what, limit=HEADER_SIZE))
        return Token(str(uuid.UUID(number.rstrip(b"\0").decode("ascii"))), sealed)
    except (DocumentError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise VerificationError(f"{what}: its LUKS2 header is none of ours") from error


def _read(area: bytes, number: int) -> tuple[int, bytes, bytes] | None:
    """Return sequence number, UUID and JSON of one of the headers, None when it is not whole."""
    raw = area[number * HEADER_SIZE : (number + 1) * HEADER_SIZE]
    if len(raw) < HEADER_SIZE:
        return None
    magic, version, size, sequence, _, algorithm, _, name, _, offset, _, checksum = (
        _BINARY.unpack_from(raw)
    )
    expected = (_MAGICS[number], 2, HEADER_SIZE, number * HEADER_SIZE, b"sha256")
    if (magic, version, size, offset, algorithm.rstrip(b"\0")) != expected:
        return None
    start = _BINARY.size - len(checksum)
    zeroed = raw[:start] + bytes(len(checksum)) + raw[_BINARY.size :]
    if hashlib.sha256(zeroed).digest() != checksum[:32]:
        return None
    return sequence, name, raw[_BINARY_SIZE:].partition(b"\0")[0]


def _sealed(body: dict[str, Any]) -> bytes:
    """Return what is sealed. Raises: KeyError, TypeError, ValueError, AttributeError."""
    (token,) = (each for each in body["tokens"].values() if each["type"] == KIND)
    sealed = bytes.fromhex(token["sealed"])
    if len(sealed) != _SEALED_SIZE:
        raise ValueError("another size")
    return sealed


def _info(name: str) -> bytes:
    """Return what a key is sealed for: it is of no use under another volume's name."""
    return b"machineos volume " + name.encode()
