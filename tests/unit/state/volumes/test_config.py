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
from machineos.errors import BootError, ToolError, VerificationError
from machineos.host.disk.device import Partition
from machineos.host.disk.luks import LuksVolume, format_command
from machineos.host.disk.tools import read_header
from machineos.state.volumes.config import (
    format_config,
    lock_config,
    open_config,
    unlock_config,
    write_record,
)
from machineos.state.volumes.header import (
    LABEL,
    RECORD_OFFSET,
    RECORD_SIZE,
    check_header,
    header_record,
    passphrase,
)

KEY = Secret(bytes(range(32)))
OTHER = Secret(bytes(32))


def luks_format(path: Path, key: Secret, *extra: str) -> Path:
    """A disk as the installer makes it, but for the integrity, which needs device-mapper."""
    with path.open("wb") as file:
        file.truncate(16 << 20)
    command = format_command(LuksVolume(path, "x"), uuid="0b0f8dd4-37d6-4b15-8b9e-3f1d8a1c7a11")
    argv = [arg for arg in command.argv if not arg.startswith("--integrity")]
    run([*argv[:-1], *extra, argv[-1]], input=passphrase(key).reveal(), timeout=60)
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


def candidate(path: Path) -> Partition:
    return Partition("vda", str(path), LABEL)


def refusal(tmp_path: Path, *disks: Path) -> str:
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    with pytest.raises(BootError) as caught:
        open_config(KEY, [candidate(path) for path in disks], scratch)
    return caught.value.message


@pytest.mark.tool("cryptsetup")
def test_our_header_is_accepted_and_its_key_opens(disk: Path) -> None:
    header = read_header(disk)
    record = header[RECORD_OFFSET : RECORD_OFFSET + RECORD_SIZE]
    check_header(KEY, header[:RECORD_OFFSET], record, what="disk")
    argv = ["cryptsetup", "open", "--test-passphrase", "--key-file=-", str(disk)]
    run(argv, input=passphrase(KEY).reveal(), timeout=60)


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
def test_a_rewritten_header_with_good_checksums(disk: Path, tmp_path: Path, change: object) -> None:
    rewrite(disk, change)
    dump = run(["cryptsetup", "luksDump", "--dump-json-metadata", disk], timeout=30, check=False)
    if change is null_data:  # cryptsetup itself takes it: so it was well made
        assert dump.status == 0, dump.stderr
    assert "was not written by this machine" in refusal(tmp_path, disk)
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.tool("cryptsetup")
def test_a_header_in_the_middle_of_re_encryption(disk: Path, tmp_path: Path) -> None:
    """Made by cryptsetup itself, with our own passphrase: still not what the installer wrote."""
    run(["cryptsetup", "reencrypt", "--init-only", "--batch-mode", "--key-file=-", "--pbkdf=pbkdf2",
         "--pbkdf-force-iterations=1000", disk],
        input=passphrase(KEY).reveal(), timeout=60)  # fmt: skip
    assert "online-reencrypt" in run(["cryptsetup", "luksDump", disk], timeout=30).text
    assert "was not written by this machine" in refusal(tmp_path, disk)


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
    message = refusal(tmp_path, theirs, copied, empty, tmp_path / "gone")
    for path in (theirs, copied, empty):
        assert f"{path}: its LUKS header was not written by this machine" in message
    assert f"{tmp_path / 'gone'}: No such file" in message
    assert list((tmp_path / "scratch").iterdir()) == []


class Opened:
    """Stands for cryptsetup, which needs device-mapper: notes what it was given."""

    def __init__(self) -> None:
        self.volumes: list[LuksVolume] = []
        self.passphrases: list[Secret] = []
        self.headers: list[tuple[Path | None, bytes, int]] = []

    def __call__(
        self, volume: LuksVolume, passphrase: Secret, *, header: Path | None = None
    ) -> Path:
        assert header is not None
        self.volumes.append(volume)
        self.passphrases.append(passphrase)
        self.headers.append((header, header.read_bytes(), header.stat().st_mode & 0o777))
        return volume.mapped


@pytest.mark.tool("cryptsetup")
def test_ours_is_reached_behind_others_and_opened_under_the_verified_copy(
    disk: Path, tmp_path: Path
) -> None:
    """What lies on the disk when cryptsetup looks may be something else by then."""
    strange = tmp_path / "strange"
    strange.write_bytes(bytes(8192))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    opened = Opened()
    candidates = [candidate(path) for path in (tmp_path / "gone", strange, disk, strange)]
    found = open_config(KEY, candidates, scratch, open_volume=opened)
    assert found == candidate(disk)
    assert opened.volumes == [LuksVolume(disk, "machine-config")]
    assert opened.passphrases == [passphrase(KEY)]
    assert opened.headers == [(scratch / "luks-header", read_header(disk), 0o600)]


@pytest.mark.tool("cryptsetup")
def test_what_does_not_open_is_passed_over(disk: Path, tmp_path: Path) -> None:
    class Refusing:
        def __call__(
            self, volume: LuksVolume, passphrase: Secret, *, header: Path | None = None
        ) -> Path:
            raise VerificationError(f"{volume.device}: no")

    with pytest.raises(BootError) as caught:
        open_config(KEY, [candidate(disk)] * 2, tmp_path, open_volume=Refusing())
    assert caught.value.message == (
        f"no configuration volume of this machine: {disk}: no; {disk}: no"
    )


@pytest.mark.tool("cryptsetup")
def test_the_real_opener_is_the_default(disk: Path, tmp_path: Path) -> None:
    """Where there is no device-mapper, that is what is refused."""
    try:
        assert open_config(KEY, [candidate(disk)], tmp_path) == candidate(disk)
    except BootError as error:
        assert f"{disk}: does not open with this machine's key" in error.message
    finally:
        lock_config()


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


def test_no_candidates(tmp_path: Path) -> None:
    message = "no disk has a partition machine-config: nothing is installed here"
    assert refusal(tmp_path) == message
