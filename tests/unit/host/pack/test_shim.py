from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.errors import SpaceError, VerificationError
from machineos.host.pack import shim
from vectors.pe import efi_binary

OLD, NEW = b"old" * 100, b"new" * 90


def long_named(content: bytes) -> bytes:
    """A binary whose section's name, over 8 bytes, stands in the string table, as in shim."""
    binary = bytearray(efi_binary(extra=((b"/4", content), (b".after", b"after"))))
    binary[0x40 + 12 : 0x40 + 20] = len(binary).to_bytes(4, "little") + bytes(4)
    table = b".vendor_cert\0"
    return bytes(binary) + (4 + len(table)).to_bytes(4, "little") + table


def test_section_is_found() -> None:
    assert shim.vendor_cert(long_named(OLD)) == OLD


def test_section_is_replaced_and_nothing_else() -> None:
    before = long_named(OLD)
    after = shim.with_vendor_cert(before, NEW)
    assert shim.vendor_cert(after) == NEW.ljust(len(OLD), b"\0")
    assert b"old" not in after
    assert shim.with_vendor_cert(after, OLD) == before
    assert shim.with_vendor_cert(before, NEW) == after


def test_a_section_that_does_not_fit_is_refused() -> None:
    assert shim.with_vendor_cert(long_named(OLD), bytes(len(OLD)))
    with pytest.raises(SpaceError):
        shim.with_vendor_cert(long_named(OLD), bytes(len(OLD) + 1))


@pytest.mark.parametrize(
    "binary",
    [b"", b"text", efi_binary(), efi_binary(extra=((b"/9999", b"x"),)), long_named(OLD)[:0x500]],
    ids=["empty", "text", "no section", "name outside the file", "cut"],
)
def test_what_is_no_shim(binary: bytes) -> None:
    with pytest.raises(VerificationError):
        shim.vendor_cert(binary)


@given(st.integers(0, len(long_named(OLD)) - 1), st.integers(1, 255))
def test_a_damaged_shim_is_replaced_in_place_or_refused(position: int, change: int) -> None:
    binary = bytearray(long_named(OLD))
    binary[position] ^= change
    try:
        result = shim.with_vendor_cert(bytes(binary), NEW)
    except (VerificationError, SpaceError):
        return
    assert len(result) == len(binary)
