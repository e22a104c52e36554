from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.core.digest import Checker, Digest
from machineos.errors import DigestError

HEX = hashlib.sha256(b"x").hexdigest()


def test_of_and_parse() -> None:
    assert str(Digest.of(b"x")) == f"sha256:{HEX}"
    assert Digest.parse(f"sha256:{HEX}") == Digest.of(b"x")
    assert Digest.of(b"x").short == HEX[:12]
    long = hashlib.sha512(b"x").hexdigest()
    Digest.parse(f"sha512:{long}").check(b"x", "thing")


@pytest.mark.parametrize(
    "text",
    [
        "", ":", HEX, "sha256", "sha256:", f"sha256:{HEX.upper()}", f"SHA256:{HEX}",
        f"sha256:{HEX[:-1]}", f"sha256:{HEX}0", f"sha256:{HEX}\n", f" sha256:{HEX}",
        f"sha512:{HEX}", f"md5:{'0' * 32}", f"sha384:{'0' * 96}", "sha256:../../etc/passwd",
        f"sha256:{HEX[:-1]}/", f"sha256:{HEX[:-1]}\0", "sha256:" + "a" * 4096,
        f"../x:{HEX}", "sha256:" + "\u0660" * 64,
    ],
)  # fmt: skip
def test_what_is_no_digest(text: str) -> None:
    with pytest.raises(DigestError) as caught:
        Digest.parse(text)
    assert len(caught.value.message) < 250


@pytest.mark.parametrize("name", ["sha256", "sha512"])
def test_the_length_of_the_hex_says_which_algorithm(name: str) -> None:
    text = hashlib.new(name, b"x").hexdigest()
    assert Digest.of_hex(text) == Digest(name, text)
    for other in (text[:-1], f"{text}0", text.upper(), f"{text}\n", f"{name}:{text}", "", "lost"):
        assert Digest.of_hex(other) is None


@given(st.text(max_size=100))
def test_any_text(text: str) -> None:
    try:
        digest = Digest.parse(text)
    except DigestError:
        return
    assert str(digest) == text


def test_check_names_the_object() -> None:
    with pytest.raises(DigestError, match="layer 7: digest is sha256:"):
        Digest.of(b"x").check(b"y", "layer 7")


@given(st.lists(st.binary(max_size=20), max_size=6))
def test_a_whole_stream_passes(chunks: list[bytes]) -> None:
    data = b"".join(chunks)
    checker = Checker(Digest.of(data), len(data), "it")
    assert b"".join(checker.through(chunks)) == data
    assert checker.seen == len(data)


@given(st.binary(min_size=1, max_size=40), st.data())
def test_any_other_stream_is_refused(data: bytes, draw: st.DataObject) -> None:
    other = draw.draw(st.binary(max_size=60).filter(lambda value: value != data))
    cut = draw.draw(st.integers(0, len(other)))
    checker = Checker(Digest.of(data), len(data), "it")
    with pytest.raises(DigestError):
        list(checker.through([other[:cut], other[cut:]]))


def test_an_endless_stream_is_cut_at_the_first_byte_too_many() -> None:
    checker = Checker(Digest.of(b"ab"), 2, "it")
    taken = []

    def endless() -> Iterator[bytes]:
        while True:
            taken.append(1)
            yield b"a"

    with pytest.raises(DigestError, match="longer than the 2 bytes"):
        list(checker.through(endless()))
    assert len(taken) == 3
