"""A volume opens on its own machine only, by a header of the one shape that is made here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.core.secret import Secret
from machineos.errors import VerificationError
from machineos.host.disk import cryptsetup
from machineos.host.disk.luks import LuksVolume
from machineos.host.disk.luks2 import parse_header
from machineos.state.volumes.sealed import make_token, open_token
from machineos.trust.wrap.hpke import public_key
from machineos.trust.wrap.storage import sealing_key

UUID = "0b0f8dd4-37d6-4b15-8b9e-3f1d8a1c7a11"
PRIVATE = sealing_key(Secret(bytes(range(32))))
SECRET = Secret(b"s" * 32)
TOKEN = make_token(public_key(PRIVATE), SECRET, uuid=UUID, random=lambda size: b"e" * size)
SEGMENT: dict[str, Any] = {
    "type": "crypt", "offset": "4194304", "size": "dynamic", "iv_tweak": "0",
    "encryption": "aes-xts-plain64", "sector_size": 4096,
}  # fmt: skip
BODY: dict[str, Any] = {
    "keyslots": {}, "tokens": {"0": json.loads(TOKEN)}, "segments": {"0": SEGMENT}, "digests": {},
    "config": {"json_size": "12288", "keyslots_size": "1048576"},
}  # fmt: skip


def header(body: object = BODY, *, uuid: str = UUID, size: int = 16384) -> bytes:
    binary = b"LUKS\xba\xbe\0\x02" + size.to_bytes(8, "big")
    binary = binary.ljust(0xA8, b"\0") + uuid.encode().ljust(40, b"\0")
    return (binary.ljust(4096, b"\0") + json.dumps(body).encode()).ljust(16384, b"\0")


def test_its_own_machine_opens_it() -> None:
    assert open_token(PRIVATE, header(), what="x") == SECRET


@pytest.mark.tool("cryptsetup")
def test_the_header_that_cryptsetup_writes_is_of_that_shape(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(16 << 20)
    volume = LuksVolume(path, "x")
    cryptsetup.format_volume(volume, Secret(b"secret"), uuid=UUID, integrity=False)
    cryptsetup.add_token(path, TOKEN)
    assert open_token(PRIVATE, cryptsetup.read_header(path), what="x") == SECRET


def test_another_machine_does_not_open_it() -> None:
    other = sealing_key(Secret(bytes(32)))
    with pytest.raises(VerificationError, match="logs: a sealed secret was not sealed for this"):
        open_token(other, header(), what="logs")


def test_the_token_of_another_volume_does_not_open_it() -> None:
    with pytest.raises(VerificationError, match="not sealed for this machine"):
        open_token(PRIVATE, header(uuid=UUID.replace("0", "1")), what="x")


def without(key: str) -> Callable[[], object]:
    return lambda: {name: value for name, value in BODY.items() if name != key}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (list, "other data"),
        (without("segments"), "other data"),
        (without("config"), "other data"),
        (lambda: {**BODY, "config": []}, "other data"),
        (lambda: {**BODY, "segments": {"0": SEGMENT, "1": SEGMENT}}, "other data"),
        (lambda: {**BODY, "segments": {"0": {**SEGMENT, "encryption": "cipher_null-ecb"}}}, "data"),
        (lambda: {**BODY, "segments": {"0": {**SEGMENT, "integrity": {}}}}, "other data"),
        (lambda: {**BODY, "config": {"requirements": {"mandatory": ["x"]}}}, "has requirements"),
        (without("tokens"), "has 0 tokens"),
        (lambda: {**BODY, "tokens": {"0": []}}, "a token that is none"),
        (lambda: {**BODY, "tokens": {"0": {"type": "other"}}}, "has 0 tokens"),
        (lambda: {**BODY, "tokens": {"0": BODY["tokens"]["0"], "1": BODY["tokens"]["0"]}}, "has 2"),
        (lambda: {**BODY, "tokens": {"0": {"type": "machineos-sealed"}}}, "is damaged"),
        (lambda: {**BODY, "tokens": {"0": {"type": "machineos-sealed", "sealed": 1}}}, "damaged"),
        (lambda: {**BODY, "tokens": {"0": {"type": "machineos-sealed", "sealed": "x"}}}, "damaged"),
        (
            lambda: {**BODY, "tokens": {"0": {"type": "machineos-sealed", "sealed": ""}}},
            "cut short",
        ),
    ],
)
def test_a_header_of_another_shape_is_refused(body: Callable[[], object], reason: str) -> None:
    with pytest.raises(VerificationError, match=reason):
        open_token(PRIVATE, header(body()), what="x")


@pytest.mark.parametrize(
    "data",
    [b"", bytes(16384), header()[:16383], header(size=32768), b"X" + header()[1:]],
)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(VerificationError, match="no LUKS header"):
        parse_header(data)


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(VerificationError, match="holds no JSON"):
        parse_header(header()[:4096] + b"{" * 12288)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_and_nothing_else(data: bytes) -> None:
    with pytest.raises(VerificationError):
        open_token(PRIVATE, header()[:4096] + data.ljust(12288, b"\0"), what="x")
