"""What is read out of a kernel image: its sections, its version, and of a damaged one why not."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.errors import DocumentError, VerificationError
from machineos.trust.measure.uki import HEAD_SIZE, find_section, policy_version
from unit.boot.worlds import kernel_image

IMAGE = kernel_image("0042")


def test_the_version_of_an_image() -> None:
    offset, size = find_section(IMAGE[:HEAD_SIZE], ".osrel")
    assert policy_version(IMAGE[offset : offset + size]) == "0042"


def test_a_section_is_no_longer_than_what_the_file_has_of_it() -> None:
    changed = bytearray(IMAGE)
    place = IMAGE.index(b".osrel")
    struct.pack_into("<I", changed, place + 8, 9999)
    assert find_section(bytes(changed), ".osrel") == (512, 512)


def test_what_is_no_image() -> None:
    for data, words in (
        (b"", "is not a PE file"),
        (b"\x7fELF" + bytes(100), "is not a PE file"),
        (b"MZ" + bytes(10), "is cut short"),
        (b"MZ" + bytes(100), "is not a PE file"),
        (IMAGE[:90], "is cut short"),
    ):
        with pytest.raises(VerificationError, match=words):
            find_section(data, ".osrel")
    with pytest.raises(VerificationError, match=r"has no section \.linux"):
        find_section(IMAGE, ".linux")
    many = bytearray(IMAGE.ljust(HEAD_SIZE, b"\0"))
    struct.pack_into("<H", many, IMAGE.index(b"PE\0\0") + 6, 65535)
    with pytest.raises(VerificationError, match=r"has no section \.linux"):
        find_section(bytes(many), ".linux")


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    for start in (b"", IMAGE[:60], IMAGE[:90]):
        with suppress(VerificationError):
            find_section(start + data, ".osrel")


@pytest.mark.parametrize("release", [b"", b"ID=x\n", b"VERSION_ID=0001\nVERSION_ID=0002\n"])
def test_a_release_that_does_not_say(release: bytes) -> None:
    with pytest.raises(VerificationError, match="does not say its policy version"):
        policy_version(release)


@pytest.mark.parametrize("text", [b"1", b"00001", b'"0001"', b"\xff"])
def test_a_version_that_is_none(text: bytes) -> None:
    with pytest.raises(DocumentError, match="is not four digits"):
        policy_version(b"VERSION_ID=" + text + b"\n")
