"""UEFI Secure Boot: signature lists, shim's certificate section, signed EFI binaries.

Signature lists follow UEFI 2.10 section 32.4.1, the section ``.vendor_cert`` follows shim's
``cert_table``. Invariant: ``sign_efi`` leaves a file only after ``verify_efi`` took it, and hands
the private key to the signing program in memory, never in a file on a disk.
"""

from __future__ import annotations

import os
import struct
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from machineos.core.files import fsync_folder, read_bounded
from machineos.errors import MissingError, SignatureError, UsageError
from machineos.host import sbsign
from machineos.trust.verify import MAX_PEM, parse_certificate
from machineos.trust.x509 import key_pem, load_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from machineos.core.secret import Secret
    from machineos.trust.keyset import KeyPair

EFI_GLOBAL = UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c")
IMAGE_SECURITY = UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
SHIM_LOCK = UUID("605dab50-e046-4300-abb6-3dd810dd8b23")
NO_OWNER = UUID(int=0)

_CERT_X509 = UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
_CERT_SHA256 = UUID("c1c41626-504c-4092-aca9-41f936934328")
_LIST_HEADER = struct.Struct("<16sIII")
_VENDOR_HEADER = struct.Struct("<IIII")
_HASH_SIZE = 32


def signature_data(owner: UUID, content: bytes) -> bytes:
    """Return an EFI_SIGNATURE_DATA: the owner's GUID and the certificate (DER) or hash."""
    return owner.bytes_le + content


def x509_list(owner: UUID, der: bytes) -> bytes:
    """Return an EFI_SIGNATURE_LIST of one certificate."""
    return _signature_list(_CERT_X509, [signature_data(owner, der)])


def sha256_list(owner: UUID, hashes: Sequence[bytes]) -> bytes:
    """Return an EFI_SIGNATURE_LIST of SHA-256 values. Raises: UsageError (none, wrong size)."""
    if not hashes or any(len(value) != _HASH_SIZE for value in hashes):
        raise UsageError("a list of SHA-256 values holds at least one, each of 32 bytes")
    return _signature_list(_CERT_SHA256, [signature_data(owner, value) for value in hashes])


def vendor_cert_section(authorised: bytes, denied: bytes = b"") -> bytes:
    """Return the content of shim's ``.vendor_cert`` section.

    ``authorised`` is one DER certificate (for a shim that was built with a vendor certificate, as
    Debian's) or a signature list (one built with a vendor database); ``denied`` a signature list.
    """
    offset = _VENDOR_HEADER.size
    header = _VENDOR_HEADER.pack(len(authorised), len(denied), offset, offset + len(authorised))
    return header + authorised + denied


def sign_efi(
    source: Path, target: Path, pair: KeyPair, *, passphrase: Secret | None = None
) -> None:
    """Sign the EFI binary ``source`` with a key pair; ``target`` appears whole or not at all.

    Signatures that ``source`` carries stay. Raises: MissingError, UsageError (passphrase),
    SignatureError (the pair does not belong together, or the result does not verify), ToolError.
    """
    if not source.is_file():
        raise MissingError(f"{source} is not a file")
    pem = read_bounded(pair.key_path, MAX_PEM)
    key = load_key(pem, passphrase, what=str(pair.key_path))
    if pair.certificate().public_key() != key.public_key():
        raise SignatureError(f"{pair.key_path} is not the key of {pair.cert_path}")
    with tempfile.TemporaryDirectory(prefix=f".{target.name[:64]}.", dir=target.parent) as folder:
        signed = Path(folder, "signed.efi")
        with _in_memory(key_pem(key, None)) as descriptor:
            sbsign.sign(
                source,
                signed,
                key=Path(f"/proc/self/fd/{descriptor}"),
                certificate=pair.cert_path,
                pass_fds=(descriptor,),
            )
        verify_efi(signed, pair.cert_path)
        _settle(signed, target)


def verify_efi(path: Path, certificate: Path) -> None:
    """Check that an EFI binary carries a signature by the key of ``certificate`` (a PEM file).

    Raises: MissingError, SignatureError (unsigned, by another key, or changed since), ToolError.
    """
    if not path.is_file():
        raise MissingError(f"{path} is not a file")
    parse_certificate(read_bounded(certificate, MAX_PEM), what=str(certificate))
    outcome = sbsign.verify(path, certificate=certificate)
    if not outcome.good:
        raise SignatureError(f"{path}: not signed by the key of {certificate}: {outcome.reason}")


def _signature_list(kind: UUID, entries: Sequence[bytes]) -> bytes:
    size = len(entries[0])
    body = b"".join(entries)
    return _LIST_HEADER.pack(kind.bytes_le, _LIST_HEADER.size + len(body), 0, size) + body


@contextmanager
def _in_memory(data: bytes) -> Iterator[int]:
    descriptor = os.memfd_create("key", os.MFD_CLOEXEC)
    try:
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, data)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _settle(temporary: Path, target: Path) -> None:
    descriptor = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, 0o644)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(target)
    fsync_folder(target.parent)
