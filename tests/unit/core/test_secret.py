from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from machineos.core.secret import Secret
from machineos.core.secretfile import MAX_SECRET, read_secret, read_secret_file
from machineos.errors import DocumentError, MissingError, OrderError

HIDDEN = b"open sesame"


def test_it_does_not_show() -> None:
    secret = Secret(HIDDEN)
    assert secret.reveal() == HIDDEN
    for shown in (repr(secret), str(secret), f"{secret}", repr([secret]), repr({"a": secret})):
        assert "sesame" not in shown


def test_it_cannot_be_pickled_hashed_or_given_attributes() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(Secret(HIDDEN))
    with pytest.raises(TypeError):
        hash(Secret(HIDDEN))
    with pytest.raises(AttributeError):
        setattr(Secret(HIDDEN), "note", "x")  # noqa: B010 (a type checker refuses the other way)


def test_its_length_is_no_secret() -> None:
    assert len(Secret(HIDDEN)) == 11
    assert not Secret(b"")


def test_it_is_overwritten_where_it_is() -> None:
    """In the bytes that were there all the time; what was revealed is a copy, and stays."""
    given = bytearray(HIDDEN)
    secret = Secret(given)
    given[:4] = b"----"
    view, copy = secret.view(), secret.reveal()
    assert view.readonly
    assert (bytes(view), secret.wiped) == (HIDDEN, False)
    secret.wipe()
    assert bytes(view) == bytes(len(HIDDEN))
    assert (copy, len(secret), secret.wiped) == (HIDDEN, len(HIDDEN), True)
    secret.wipe()
    for ask in (secret.reveal, secret.view):
        with pytest.raises(OrderError, match="that was overwritten"):
            ask()
    assert secret != Secret(HIDDEN)


def test_equality() -> None:
    assert Secret(HIDDEN) == Secret(HIDDEN)
    assert Secret(HIDDEN) != Secret(b"other")
    assert Secret(HIDDEN) != HIDDEN


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a", b"a"),
        (b"a\n", b"a"),
        (b"a\r\n", b"a"),
        (b"a\n\n", b"a\n"),
        (b" a ", b" a "),
        (b"x" * MAX_SECRET + b"\n", b"x" * MAX_SECRET),
    ],
)
def test_files(content: bytes, expected: bytes, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    assert read_secret_file(path).reveal() == expected


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\n", b"x" * (MAX_SECRET + 1)])
def test_bad_files(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    with pytest.raises(DocumentError):
        read_secret_file(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(MissingError):
        read_secret_file(tmp_path / "none")
    with pytest.raises(DocumentError):
        read_secret_file(tmp_path)
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(DocumentError):
        read_secret_file(loop)


def test_an_endless_file_is_cut_off() -> None:
    with pytest.raises(DocumentError, match="larger"):
        read_secret_file(Path("/dev/zero"))


def test_a_pipe() -> None:
    reader, writer = os.pipe()
    try:
        os.write(writer, b"open ")
        os.write(writer, b"sesame\n")
        os.close(writer)
        assert read_secret(reader, name="pipe").reveal() == HIDDEN
    finally:
        os.close(reader)
