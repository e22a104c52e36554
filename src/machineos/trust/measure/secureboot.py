"""UEFI Secure Boot: signature lists, shim's certificate section, as bytes.

Signature lists follow UEFI 2.10 section 32.4.1, the section ``.vendor_cert`` follows shim's
``cert_table``. Pure.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING
from uuid import UUID

from machineos.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


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


def _signature_list(kind: UUID, entries: Sequence[bytes]) -> bytes:
    size = max(len(entry) for entry in entries)
    body = b"".join(entries)
    return _LIST_HEADER.pack(kind.bytes_le, _LIST_HEADER.size + len(body), 0, size) + body
