"""Signature lists and shim's section, byte by byte."""

from __future__ import annotations

import struct
from uuid import UUID

import pytest

from machineos.errors import UsageError
from machineos.trust.measure import secureboot

OWNER = UUID("00112233-4455-6677-8899-aabbccddeeff")


def test_the_owners_are_those_of_uefi_and_shim() -> None:
    found = (
        secureboot.EFI_GLOBAL, secureboot.IMAGE_SECURITY, secureboot.SHIM_LOCK, secureboot.NO_OWNER,
    )  # fmt: skip
    assert [str(guid) for guid in found] == [
        "8be4df61-93ca-11d2-aa0d-00e098032b8c",
        "d719b2cb-3d3a-4596-a3bc-dad00e67656f",
        "605dab50-e046-4300-abb6-3dd810dd8b23",
        "00000000-0000-0000-0000-000000000000",
    ]


def test_x509_list() -> None:
    found = secureboot.x509_list(OWNER, b"DER")
    kind, size, header, entry = struct.unpack_from("<16sIII", found)
    assert str(UUID(bytes_le=kind)) == "a5c059a1-94e4-4aa7-87b5-ab155c2bf072"
    assert (size, header, entry) == (len(found), 0, 16 + 3)
    assert found[28:] == OWNER.bytes_le + b"DER"
    assert OWNER.bytes_le[:4] == bytes.fromhex("33221100")


def test_sha256_list() -> None:
    one, two = bytes(32), bytes(range(32))
    found = secureboot.sha256_list(OWNER, [one, two])
    kind, size, header, entry = struct.unpack_from("<16sIII", found)
    assert str(UUID(bytes_le=kind)) == "c1c41626-504c-4092-aca9-41f936934328"
    assert (size, header, entry) == (28 + 2 * 48, 0, 48)
    assert found[28:] == OWNER.bytes_le + one + OWNER.bytes_le + two
    for bad in ([], [b"short"], [one, two[:31]]):
        with pytest.raises(UsageError, match="holds at least one, each of 32 bytes"):
            secureboot.sha256_list(OWNER, bad)


def test_vendor_cert_section() -> None:
    assert secureboot.vendor_cert_section(b"abc") == struct.pack("<IIII", 3, 0, 16, 19) + b"abc"
    assert secureboot.vendor_cert_section(b"abc", b"de") == (
        struct.pack("<IIII", 3, 2, 16, 19) + b"abcde"
    )
