"""Strings with a grammar: what is refused when one is made, and that the rest are plain strings."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from machineos.core.word import DocumentId, RootHash, Word
from machineos.errors import VerificationError


class Colour(Word):
    __slots__ = ()
    PATTERN = r"[a-z]{3,5}"
    WHAT = "a colour"


def test_a_word_is_the_string_it_was_made_of() -> None:
    red = Colour("red")
    assert red == "red"
    assert f"{red}" == "red"
    assert hash(red) == hash("red")
    assert isinstance(red, Colour)
    assert type(str(red)) is str


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is missing or empty"),
        ("Red", "'Red' is not a colour"),
        ("re", "'re' is not a colour"),
        ("yellow", "'yellow' is not a colour"),
        ("red\n", "'red\\n' is not a colour"),
        (" red", "' red' is not a colour"),
        ("x" * 100, f"'{'x' * 80}' is not a colour"),
        ("white", ""),
        ("red", ""),
    ],
)
def test_what_is_wrong_is_said_whether_one_is_made_or_asked_for(text: str, problem: str) -> None:
    assert Colour.problem(text) == problem
    if not problem:
        assert Colour(text) == text
        return
    with pytest.raises(VerificationError) as caught:
        Colour(text)
    assert caught.value.message == problem


def test_a_document_is_named_by_the_sha256_of_its_bytes() -> None:
    assert DocumentId.of(b"data") == hashlib.sha256(b"data").hexdigest()
    assert type(DocumentId.of(b"data")) is DocumentId
    assert DocumentId.problem("a" * 64) == ""
    for bad in ("a" * 63, "a" * 65, "A" * 64, "g" * 64, "a" * 64 + "\n"):
        assert DocumentId.problem(bad) == f"{bad[:80]!r} is not a sha256 in hex"


def test_a_root_hash_is_hex_and_not_all_zero() -> None:
    assert RootHash("0" * 63 + "1") == "0" * 63 + "1"
    assert RootHash.problem("1" + "0" * 63) == ""
    for bad in ("00", "0" * 64, "a" * 63, "a" * 65, "A" * 64, "a" * 64 + "\n"):
        assert RootHash.problem(bad) == f"{bad!r} is not a verity root hash"
    sha512 = "a" * 128
    assert RootHash.problem(sha512) == f"{sha512[:80]!r} is not a verity root hash"


def test_a_word_is_written_as_a_string_with_the_hook() -> None:
    assert msgspec.json.encode({"a": Colour("red")}, enc_hook=str) == b'{"a":"red"}'
