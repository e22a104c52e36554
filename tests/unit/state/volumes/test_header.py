"""Whose a header is: the MAC and the keys derived for it (ADR 0005)."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.core.secret import Secret
from machineos.errors import VerificationError
from machineos.state.volumes.header import (
    LABEL,
    NAME,
    RECORD_OFFSET,
    RECORD_SIZE,
    check_header,
    derive,
    header_record,
    passphrase,
)

KEY = Secret(bytes(range(32)))
OTHER = Secret(bytes(32))


def test_names_and_places_that_are_on_disks_in_the_field() -> None:
    assert (LABEL, NAME) == ("machine-config", "machine-config")
    assert (RECORD_OFFSET, RECORD_SIZE) == (2 << 20, 56)


def test_derived_keys_are_hkdf_and_differ() -> None:
    key = KEY.reveal()
    expected = hmac.new(key, b"machineos luks-header\x01", hashlib.sha256).digest()
    assert derive(KEY, b"luks-header") == Secret(expected)
    slot = hmac.new(key, b"machineos luks-passphrase\x01", hashlib.sha256).hexdigest()
    assert passphrase(KEY) == Secret(slot.encode())


def test_the_record() -> None:
    """Golden: what machines in the field have on their disks."""
    record = header_record(KEY, b"area")
    inner = derive(KEY, b"luks-header").reveal()
    mac = hmac.new(inner, b"area", hashlib.sha256).digest()
    assert record == b"machineos-luks-header-1\0" + mac
    assert len(record) == RECORD_SIZE


def test_a_refusal_names_the_device() -> None:
    with pytest.raises(VerificationError) as caught:
        check_header(KEY, b"area", b"", what="/dev/vda2")
    message = "/dev/vda2: its LUKS header was not written by this machine"
    assert caught.value.message == message


@given(st.binary(max_size=300), st.integers(0, 2400))
def test_any_change_of_a_small_area(area: bytes, place: int) -> None:
    record = header_record(KEY, area)
    check_header(KEY, area, record, what="x")
    for other in (area + b"\0", area[:-1] if area else b"\0", area[::-1] + b"x"):
        with pytest.raises(VerificationError):
            check_header(KEY, other, record, what="x")
    if area:
        bad = bytearray(area)
        bad[place // 8 % len(area)] ^= 1 << place % 8
        with pytest.raises(VerificationError):
            check_header(KEY, bytes(bad), record, what="x")
    with pytest.raises(VerificationError):
        check_header(OTHER, area, record, what="x")
    for short in (b"", record[:-1], record + b"\0"):
        with pytest.raises(VerificationError):
            check_header(KEY, area, short, what="x")
