"""Tokens in headers that cryptsetup made, keys, and headers that somebody else would like read."""

from __future__ import annotations

import hashlib
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from machineos.core.run import perform, run
from machineos.core.secret import Secret
from machineos.errors import VerificationError
from machineos.host.disk import cryptsetup, luks
from machineos.host.kernel.crypttable import SECTOR_SIZE
from machineos.state.volumes import sealed
from machineos.trust.wrap import hpke
from waiting import PATIENCE

KEY = Secret(bytes(range(32)))
VOLUME_KEY = Secret(bytes(reversed(range(64))))
UUID = "0b0f8dd4-37d6-4b15-8b9e-3f1d8a1c7a11"
INTEGRITY = "5993aaf653f05a244cd63ccfd8715fec8bde07ae504385d15d80b714657f4c94"
PUBLIC = "3686514cf6ef9d528557318154b2d80380a44212b620598d00bd5a86d2b6a42c"
pytestmark = pytest.mark.tool("cryptsetup")


def test_the_keys_are_made_apart() -> None:
    """From these bytes on they are in the field: another value opens no volume any more."""
    assert sealed.integrity_key(KEY).reveal().hex() == INTEGRITY
    assert hpke.public_key(sealed.machine_key(KEY)).hex() == PUBLIC


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume as it is made for a service, without a device mapper."""
    path = tmp_path_factory.mktemp("volume") / "image"
    with path.open("wb") as file:
        file.truncate(16 << 20)
    cryptsetup.format_keyed(luks.LuksVolume(path, "x"), Secret(b"p"), VOLUME_KEY, uuid=UUID)
    public = hpke.public_key(sealed.machine_key(KEY))
    token = sealed.make_token(public, VOLUME_KEY, "web", random=os.urandom)
    perform(luks.token_command(path, token))
    return path


def area(path: Path) -> bytes:
    return path.read_bytes()[: sealed.HEADERS_SIZE]


def test_the_key_comes_out_of_the_header(volume: Path) -> None:
    token = sealed.read_token(area(volume), what="web")
    assert token.uuid == UUID
    assert sealed.open_token(sealed.machine_key(KEY), token.sealed, "web") == VOLUME_KEY
    for key, name in ((Secret(bytes(32)), "web"), (KEY, "other")):
        with pytest.raises(VerificationError, match=f"volume {name}: it is not sealed to this"):
            sealed.open_token(sealed.machine_key(key), token.sealed, name)


def test_cryptsetup_has_the_same_key_and_place_of_the_data(volume: Path) -> None:
    """An owner gets at what is on a disk with no program of ours."""
    argv = [
        "cryptsetup",
        "luksDump",
        "--batch-mode",
        "--dump-volume-key",
        "--key-file=-",
        str(volume),
    ]
    text = run(argv, input=b"p", timeout=PATIENCE).text
    shown = "".join(text.partition("MK dump:")[2].split())
    assert shown == VOLUME_KEY.reveal().hex()
    dump = run(["cryptsetup", "luksDump", "--dump-json-metadata", volume], timeout=PATIENCE).text
    (segment,) = json.loads(dump)["segments"].values()
    ours = sealed.volume_of(volume, "x", UUID)
    assert (ours.device, ours.name, ours.uuid) == (volume, "x", UUID)
    assert (segment["offset"], segment["encryption"]) == (str(ours.offset), ours.cipher)
    assert (segment["sector_size"], segment["iv_tweak"]) == (SECTOR_SIZE, "0")


# -- what root may have written


def test_nothing_else_of_the_header_is_looked_at(volume: Path) -> None:
    """Another cipher, place of the data or keyslot says nothing: those that are used are ours."""
    other = {"segments/0/encryption": "cipher_null-ecb", "segments/0/offset": "4096",
             "keyslots": {}}  # fmt: skip
    data = changed(changed(area(volume), 0, other), 1, other)
    assert data != area(volume)
    assert sealed.read_token(data, what="web") == sealed.read_token(area(volume), what="web")


def changed(data: bytes, number: int, change: dict[str, Any]) -> bytes:
    """Return the headers with other JSON in one of them, under a checksum that fits."""
    start = number * sealed.HEADER_SIZE
    head = bytearray(data[start : start + sealed.HEADER_SIZE])
    body = json.loads(head[4096:].partition(b"\0")[0])
    for path, value in change.items():
        *above, last = path.split("/")
        place = body
        for name in above:
            place = place[name]
        place[last] = value
    head[4096:] = json.dumps(body).encode().ljust(len(head) - 4096, b"\0")
    return with_head(data, number, head)


def with_head(data: bytes, number: int, head: bytearray) -> bytes:
    head[448:512] = bytes(64)
    head[448:480] = hashlib.sha256(head).digest()
    start = number * sealed.HEADER_SIZE
    return data[:start] + bytes(head) + data[start + len(head) :]


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": {}},
        {"tokens/0/type": "systemd-tpm2"},
        {"tokens/0/sealed": "00"},
        {"tokens/0/sealed": "x" * 224},
        {"tokens/0/sealed": 5},
        {"tokens/1": {"type": "machineos-sealed", "sealed": "00" * 112}},
        {"tokens": None},
    ],
)
def test_what_is_not_as_ours_are(volume: Path, change: dict[str, Any]) -> None:
    data = changed(changed(area(volume), 0, change), 1, change)
    with pytest.raises(VerificationError, match="web: its LUKS2 header is none of ours"):
        sealed.read_token(data, what="web")


def test_one_header_that_is_not_whole_is_nothing(volume: Path) -> None:
    good = area(volume)
    wanted = sealed.read_token(good, what="web")
    for number in (0, 1):
        start = number * sealed.HEADER_SIZE
        for place in (0, 7, 15, 23, 74, 256 + 7, 460, 4096, sealed.HEADER_SIZE - 1):
            data = bytearray(good)
            data[start + place] ^= 0xFF
            assert sealed.read_token(bytes(data), what="web") == wanted
            both = bytearray(data)
            both[sealed.HEADER_SIZE - start] ^= 1  # the magic of the other
            with pytest.raises(VerificationError, match="web: it has no LUKS2 header"):
                sealed.read_token(bytes(both), what="web")


def test_the_newer_of_two_counts(volume: Path) -> None:
    """As for cryptsetup, which would open by it and repair the other."""
    data = changed(area(volume), 1, {"tokens/0/sealed": "00" * 112})
    head = bytearray(data[sealed.HEADER_SIZE :])
    head[16:24] = (1 << 40).to_bytes(8, "big")
    data = with_head(data, 1, head)
    assert sealed.read_token(data, what="web").sealed == bytes(112)


@pytest.mark.parametrize("number", range(20))
def test_anything(number: int) -> None:
    chance = random.Random(number)
    data = chance.randbytes(chance.choice([0, 5, 4096, sealed.HEADERS_SIZE]))
    with pytest.raises(VerificationError):
        sealed.read_token(data, what="web")
