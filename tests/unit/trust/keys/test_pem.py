"""Certificates with words for people in front of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from machineos.core.run import run
from machineos.errors import DocumentError, SignatureError
from machineos.trust.keys.pem import read_certificate, without_text
from machineos.trust.verify.chain import MAX_PEM, parse_certificate

if TYPE_CHECKING:
    from pathlib import Path

PEM = b"-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n"


def test_text_in_front_is_taken_off() -> None:
    for text in (b"", b"Bag Attributes\n    friendlyName: me\n", b"\n\n", b"\xff\xfe \r\n"):
        assert without_text(text + PEM) == PEM


@pytest.mark.parametrize(
    "pem",
    [
        b"words on the same line " + PEM,
        b"-----BEGIN PRIVATE KEY-----\nQUJD\n-----END PRIVATE KEY-----\n" + PEM,
        b"no certificate at all\n",
        b"",
    ],
)
def test_anything_else_stays_for_the_parser_to_refuse(pem: bytes) -> None:
    assert without_text(pem) == pem
    with pytest.raises(SignatureError, match="is not exactly one certificate"):
        parse_certificate(without_text(pem))


@pytest.mark.tool("openssl")
def test_what_openssl_writes(tmp_path: Path) -> None:
    argv = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=x -keyout key.pem -out bare.pem"
    run(argv.split(), timeout=60.0, cwd=tmp_path)
    run(
        ["openssl", "x509", "-in", "bare.pem", "-text", "-out", "text.pem"],
        timeout=60.0,
        cwd=tmp_path,
    )
    bare = (tmp_path / "bare.pem").read_bytes()
    assert (tmp_path / "text.pem").read_bytes().startswith(b"Certificate:")
    assert read_certificate(tmp_path / "text.pem") == bare
    assert parse_certificate(read_certificate(tmp_path / "text.pem")).subject
    with pytest.raises(SignatureError):  # whatever a machine is shown has none
        parse_certificate((tmp_path / "text.pem").read_bytes())
    (tmp_path / "text.pem").write_bytes(b"x" * MAX_PEM + b"\n" + bare)
    with pytest.raises(DocumentError, match="larger than"):
        read_certificate(tmp_path / "text.pem")
