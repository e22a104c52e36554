"""The header of the configuration volume is authenticated before cryptsetup sees it.

Rows 14, 15 and 16 of the attacks: null cipher, re-encryption, a second disk with the same name.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from machineos.core.run import run
from machineos.core.secret import Secret
from machineos.errors import ToolError, VerificationError
from machineos.host.disk.cryptsetup import read_header
from machineos.host.disk.luks import LuksVolume, format_command
from machineos.state.volumes.config import (
    format_config,
    unlock_config,
    write_record,
)
from machineos.state.volumes.header import (
    HEADER_SIZE,
    RECORD_OFFSET,
    RECORD_SIZE,
    check_header,
    header_record,
    passphrase,
)
from waiting import PATIENCE

KEY = Secret(bytes(range(32)))
OTHER = Secret(bytes(32))


def luks_format(path: Path, key: Secret, *extra: str) -> Path:
    """A disk as the installer makes it, but for the integrity, which needs device-mapper."""
    with path.open("wb") as file:
        file.truncate(16 << 20)
    command = format_command(LuksVolume(path, "x"), uuid="0b0f8dd4-37d6-4b15-8b9e-3f1d8a1c7a11")
    argv = [arg for arg in command.argv if not arg.startswith("--integrity")]
    run([*argv[:-1], *extra, argv[-1]], input=passphrase(key).reveal(), timeout=PATIENCE)
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
    header = read_header(disk, HEADER_SIZE)
    record = header[RECORD_OFFSET:]
    with pytest.raises(VerificationError) as caught:
        check_header(KEY, header[:RECORD_OFFSET], record, what=str(disk))
    return caught.value.message


@pytest.mark.tool("cryptsetup")
def test_our_header_is_accepted_and_its_key_opens(disk: Path) -> None:
    header = read_header(disk, HEADER_SIZE)
    record = header[RECORD_OFFSET:]
    check_header(KEY, header[:RECORD_OFFSET], record, what="disk")
    argv = ["cryptsetup", "open", "--test-passphrase", "--key-file=-", str(disk)]
    run(argv, input=passphrase(KEY).reveal(), timeout=PATIENCE)


@pytest.mark.tool("cryptsetup")
def test_any_flipped_bit_is_refused(template: bytes) -> None:
    """In the binary header, JSON, its copy, the key slot, the unused rest, and the record."""
    area = template[:RECORD_OFFSET]
    record = template[RECORD_OFFSET : RECORD_OFFSET + RECORD_SIZE]
    for place in (0, 7, 4095, 4096, 5000, 16384, 20480, 32768, 40000, 1 << 19, RECORD_OFFSET - 1):
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


def null_cipher(document: dict[str, Any]) -> None:
    for slot in document["keyslots"].values():
        slot["area"]["encryption"] = "cipher_null-ecb"
        slot["area"]["key_size"] = 0


def null_data(document: dict[str, Any]) -> None:
    for segment in document["segments"].values():
        segment["encryption"] = "cipher_null-ecb"


@pytest.mark.tool("cryptsetup")
@pytest.mark.parametrize("change", [null_cipher, null_data])
def test_a_rewritten_header_with_good_checksums(disk: Path, change: object) -> None:
    rewrite(disk, change)
    dump = run(
        ["cryptsetup", "luksDump", "--dump-json-metadata", disk], timeout=PATIENCE, check=False
    )
    if change is null_data:  # cryptsetup itself takes it: so it was well made
        assert dump.status == 0, dump.stderr
    assert "was not written by this machine" in refusal(disk)


@pytest.mark.tool("cryptsetup")
def test_a_header_in_the_middle_of_re_encryption(disk: Path) -> None:
    """Made by cryptsetup itself, with our own passphrase: still not what the installer wrote."""
    run(["cryptsetup", "reencrypt", "--init-only", "--batch-mode", "--key-file=-", "--pbkdf=pbkdf2",
         "--pbkdf-force-iterations=1000", disk],
        input=passphrase(KEY).reveal(), timeout=PATIENCE)  # fmt: skip
    assert "online-reencrypt" in run(["cryptsetup", "luksDump", disk], timeout=PATIENCE).text
    assert "was not written by this machine" in refusal(disk)


@pytest.mark.tool("cryptsetup")
def test_the_checksums_of_the_rewrite_are_right(disk: Path) -> None:
    """Without this the test above could pass for the wrong reason."""
    rewrite(disk, lambda document: document["config"].update({"flags": ["allow-discards"]}))
    assert "allow-discards" in run(["cryptsetup", "luksDump", disk], timeout=PATIENCE).text
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


@pytest.mark.tool("cryptsetup")
def test_the_record_is_written_where_it_is_looked_for(disk: Path) -> None:
    before = disk.read_bytes()
    write_record(OTHER, disk)
    after = disk.read_bytes()
    end = RECORD_OFFSET + RECORD_SIZE
    assert after[RECORD_OFFSET:end] == header_record(OTHER, before[:RECORD_OFFSET])
    assert (after[:RECORD_OFFSET], after[end:]) == (before[:RECORD_OFFSET], before[end:])


def test_what_cannot_be_made_or_opened_is_said(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="cryptsetup luksFormat"):
        format_config(KEY, tmp_path / "none", uuid="0b0f8dd4-37d6-4b15-8b9e-3f1d8a1c7a11")
    with pytest.raises(VerificationError, match="none: does not open with this machine's key"):
        unlock_config(KEY, tmp_path / "none")
