"""How the volumes of services are locked: keys made of the storage volume key, and a token.

Each volume is LUKS2 with a passphrase of its own, which is random and known to nobody: it is sealed
to this machine's public key and lies in a token of the volume's header. The private key is made of
what the TPM seals, in the initrd, so who makes a volume at run time cannot open it at the next
boot, and neither can who copies the disk. Below them all is dm-integrity with a key that root can
read, so it is made apart from every other (docs/adr/0031). Touches nothing.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machineos.core.jsondoc import parse_json
from machineos.errors import DocumentError, VerificationError
from machineos.host.disk import integrity
from machineos.host.disk.luks import CIPHER, ITERATIONS
from machineos.state.volumes.header import derive, hexadecimal
from machineos.trust.wrap import hpke

if TYPE_CHECKING:
    from collections.abc import Callable

    from machineos.core.secret import Secret

GROUP = "machine-data"  # the partition, and the volume group on it
INTEGRITY = integrity.name_of(GROUP)  # what the partition is opened as
KIND = "machineos-sealed"  # the type of our token
PASSPHRASE_SIZE = 64  # 32 random bytes in hexadecimal
_SEALED_SIZE = PASSPHRASE_SIZE + hpke.OVERHEAD
_DERIVED = ("pbkdf2", "sha256", ITERATIONS)
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


def make_passphrase(raw: Secret) -> Secret:
    """Return a passphrase made of 32 random bytes, which are overwritten."""
    made = hexadecimal(raw)
    raw.wipe()
    return made


def make_token(
    recipient: bytes, passphrase: Secret, name: str, *, random: Callable[[int], bytes]
) -> bytes:
    """Return the token (JSON) with the passphrase of the volume ``name`` sealed to the machine with
    this public key. Raises: VerificationError (it is no key)."""
    sealed = hpke.seal(recipient, passphrase, info=_info(name), random=random)
    return f'{{"type":"{KIND}","keyslots":["0"],"sealed":"{sealed.hex()}"}}'.encode()


def open_token(private_key: Secret, sealed: bytes, name: str) -> Secret:
    """Return the passphrase of the volume ``name``. Raises: VerificationError."""
    try:
        return hpke.open_sealed(private_key, sealed, info=_info(name))
    except VerificationError as error:
        raise error.about(f"volume {name}") from error


def read_token(area: bytes, *, what: str) -> bytes:
    """Return what is sealed in the token of a LUKS2 header; ``area`` is the first HEADERS_SIZE
    bytes of the volume, which root may have written.

    Of the two headers the newer one counts whose checksum fits, as for cryptsetup. Refused is what
    would not be encrypted as ours are. Raises: VerificationError.
    """
    found = [_read(area, number) for number in _MAGICS]
    good = [each for each in found if each is not None]
    if not good:
        raise VerificationError(f"{what}: it has no LUKS2 header")
    _, data = max(good, key=lambda each: each[0])
    try:
        return _sealed(parse_json(data, name=what, limit=HEADER_SIZE))
    except (DocumentError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise VerificationError(f"{what}: its LUKS2 header is none of ours") from error


def _read(area: bytes, number: int) -> tuple[int, bytes] | None:
    """Return sequence number and JSON of one of the headers, None when it is not whole."""
    raw = area[number * HEADER_SIZE : (number + 1) * HEADER_SIZE]
    if len(raw) < HEADER_SIZE:
        return None
    magic, version, size, sequence, _, algorithm, _, _, _, offset, _, checksum = (
        _BINARY.unpack_from(raw)
    )
    expected = (_MAGICS[number], 2, HEADER_SIZE, number * HEADER_SIZE, b"sha256")
    if (magic, version, size, offset, algorithm.rstrip(b"\0")) != expected:
        return None
    start = _BINARY.size - len(checksum)
    zeroed = raw[:start] + bytes(len(checksum)) + raw[_BINARY.size :]
    if hashlib.sha256(zeroed).digest() != checksum[:32]:
        return None
    return sequence, raw[_BINARY_SIZE:].partition(b"\0")[0]


def _sealed(body: dict[str, Any]) -> bytes:
    """Return what is sealed. Raises: KeyError, TypeError, ValueError, AttributeError."""
    kinds = {(each["type"], each["encryption"]) for each in body["segments"].values()}
    if kinds != {("crypt", CIPHER)}:
        raise ValueError("another encryption")
    (slot,), (digest,) = body["keyslots"].values(), body["digests"].values()
    for derived in (slot["kdf"], digest):  # cryptsetup does as many rounds as stand there
        if (derived["type"], derived["hash"], derived["iterations"]) != _DERIVED:
            raise ValueError("another derivation, which may take for ever")
    (token,) = (each for each in body["tokens"].values() if each["type"] == KIND)
    sealed = bytes.fromhex(token["sealed"])
    if len(sealed) != _SEALED_SIZE:
        raise ValueError("another size")
    return sealed


def _info(name: str) -> bytes:
    """Return what a passphrase is sealed for: it is of no use under another volume's name."""
    return b"machineos volume " + name.encode()
