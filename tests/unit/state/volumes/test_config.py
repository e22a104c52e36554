"""The header of the configuration volume is authenticated before cryptsetup sees it.

Rows 14, 15 and 16 of the attacks: null cipher, re-encryption, a second disk with the same name.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.core.run import run
from machineos.errors import VerificationError
from machineos.host.disk.luks import LuksVolume, argv_format, read_header
from machineos.state.volumes.config import write_record
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

KEY = bytes(range(32))
OTHER = bytes(32)


def luks_format(path: Path, key: bytes, *extra: str) -> Path:
    """A disk as the installer makes it, but for the integrity, which needs device-mapper."""
    with path.open("wb") as file:
        file.truncate(16 << 20)
    argv = argv_format(LuksVolume(path, "x"), uuid="0b0f8dd4-37d6-4b15-8b9e-3f1d8a1c7a11")
    argv = [arg for arg in argv if not arg.startswith("--integrity")]
    run([*argv[:-1], *extra, argv[-1]], input=passphrase(key), timeout=60)
    return path


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = luks_format(tmp_path_factory.mktemp("luks") / "disk", KEY)
    write_record(KEY, path)
    return path.read_bytes()


@pytest.fixture
def disk(tmp_path: Path, template: bytes) -> Path:
    path = tmp_path / "ours"
    path.write_bytes(template)
    return path


def refusal(disk: Path) -> str:
    header = read_header(disk)
    record = header[RECORD_OFFSET : RECORD_OFFSET + RECORD_SIZE]
    with pytest.raises(VerificationError) as caught:
        check_header(KEY, header[:RECORD_OFFSET], record, what=str(disk))
    return caught.value.message


def test_where_the_record_lies() -> None:
    """It is on every disk that was installed: behind both headers and the key slots, before what
    is encrypted."""
    assert (RECORD_OFFSET, RECORD_SIZE) == (2 << 20, 24 + 32)
    own = hmac.new(KEY, b"machineos luks-header\x01", hashlib.sha256).digest()
    mac = hmac.new(own, b"area", hashlib.sha256).digest()
    assert header_record(KEY, b"area") == b"machineos-luks-header-1\0" + mac
    assert len(header_record(KEY, b"area")) == RECORD_SIZE
    assert (LABEL, NAME) == ("machine-config", "machine-config")


def test_derived_keys_are_hkdf_and_differ() -> None:
    expected = hmac.new(KEY, b"machineos luks-header\x01", hashlib.sha256).digest()
    assert derive(KEY, b"luks-header") == expected
    assert passphrase(KEY) == derive(KEY, b"luks-passphrase").hex().encode()
    assert len({derive(KEY, b"luks-header"), derive(KEY, b"luks-passphrase"), KEY}) == 3


@pytest.mark.tool("cryptsetup")
def test_our_header_is_accepted_and_its_key_opens(disk: Path) -> None:
    header = read_header(disk)
    record = header[RECORD_OFFSET : RECORD_OFFSET + RECORD_SIZE]
    check_header(KEY, header[:RECORD_OFFSET], record, what="disk")
    argv = ["cryptsetup", "open", "--test-passphrase", "--key-file=-", disk]
    run(argv, input=passphrase(KEY), timeout=60)


@pytest.mark.tool("cryptsetup")
def test_any_flipped_bit_is_refused(template: bytes) -> None:
    """In the binary header, JSON, its copy, the key slot, the unused rest, and the record."""
    area = template[:RECORD_OFFSET]
    record = template[RECORD_OFFSET : RECORD_OFFSET + RECORD_SIZE]
    for place in (0, 7, 4095, 4096, 5000, 16384, 20480, 32768, 40000, 1 << 20, RECORD_OFFSET - 1):
        for bit in (0, 7):
            bad = bytearray(area)
            bad[place] ^= 1 << bit
            with pytest.raises(VerificationError, match="not written by this machine"):
                check_header(KEY, bytes(bad), record, what="disk")
    for place in range(RECORD_SIZE):
        broken = bytearray(record)
        broken[place] ^= 1
        with pytest.raises(VerificationError):
            check_header(KEY, area, bytes(broken), what="disk")


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


def rewrite(path: Path, change: object) -> None:
    """Change the JSON of both headers as an attacker would: with right checksums."""
    with path.open("r+b") as file:
        for offset in (0, 16384):
            file.seek(offset)
            block = bytearray(file.read(16384))
            document = json.loads(block[4096:].split(b"\0", 1)[0])
            change(document)  # type: ignore[operator]
            block[4096:] = json.dumps(document).encode().ljust(12288, b"\0")
            block[448:512] = bytes(64)
            digest = hashlib.sha256(bytes(block)).digest()
            block[448:480] = digest
            file.seek(offset)
            file.write(block)


def null_cipher(document: dict) -> None:
    for slot in document["keyslots"].values():
        slot["area"]["encryption"] = "cipher_null-ecb"
        slot["area"]["key_size"] = 0


def null_data(document: dict) -> None:
    for segment in document["segments"].values():
        segment["encryption"] = "cipher_null-ecb"


@pytest.mark.tool("cryptsetup")
@pytest.mark.parametrize("change", [null_cipher, null_data])
def test_a_rewritten_header_with_good_checksums(disk: Path, change: object) -> None:
    rewrite(disk, change)
    dump = run(["cryptsetup", "luksDump", "--dump-json-metadata", disk], timeout=30, check=False)
    if change is null_data:  # cryptsetup itself takes it: so it was well made
        assert dump.status == 0, dump.stderr
    assert "was not written by this machine" in refusal(disk)


@pytest.mark.tool("cryptsetup")
def test_a_header_in_the_middle_of_re_encryption(disk: Path) -> None:
    """Made by cryptsetup itself, with our own passphrase: still not what the installer wrote."""
    run(["cryptsetup", "reencrypt", "--init-only", "--batch-mode", "--key-file=-", "--pbkdf=pbkdf2",
         "--pbkdf-force-iterations=1000", disk], input=passphrase(KEY), timeout=60)  # fmt: skip
    assert "online-reencrypt" in run(["cryptsetup", "luksDump", disk], timeout=30).text
    assert "was not written by this machine" in refusal(disk)


@pytest.mark.tool("cryptsetup")
def test_the_checksums_of_the_rewrite_are_right(disk: Path) -> None:
    """Without this the test above could pass for the wrong reason."""
    rewrite(disk, lambda document: document["config"].update({"flags": ["allow-discards"]}))
    assert "allow-discards" in run(["cryptsetup", "luksDump", disk], timeout=30).text
    assert struct.unpack_from(">H", disk.read_bytes(), 6)[0] == 2


@pytest.mark.tool("cryptsetup")
def test_a_second_disk_is_a_candidate_that_does_not_match(disk: Path, tmp_path: Path) -> None:
    """Its attacker knows its passphrase, and copied our record, or wrote one under another key."""
    theirs = luks_format(tmp_path / "theirs", OTHER)
    copied = luks_format(tmp_path / "copied", OTHER)
    with copied.open("r+b") as file:
        file.seek(RECORD_OFFSET)
        file.write(disk.read_bytes()[RECORD_OFFSET : RECORD_OFFSET + RECORD_SIZE])
    write_record(OTHER, theirs)
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    for path in (theirs, copied, empty):
        assert refusal(path) == f"{path}: its LUKS header was not written by this machine"
