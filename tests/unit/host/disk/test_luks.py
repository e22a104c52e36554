"""LUKS2 with the real program on plain files. Integrity needs device-mapper, so it is left out of
what is formatted here; the guests cover it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from machineos.core.command import Command, Result
from machineos.core.run import run
from machineos.errors import VerificationError
from machineos.host.disk.cryptsetup import read_header
from machineos.host.disk.luks import (
    HEADER_SIZE,
    KEYSLOTS_SIZE,
    LuksVolume,
    check_opened,
    close_command,
    format_command,
    open_command,
)
from machineos.state.volumes.header import RECORD_OFFSET, RECORD_SIZE
from waiting import PATIENCE

VOLUME = LuksVolume(Path("/dev/vda2"), "machine-config")
UUID = "0b0f8dd4-37d6-4b15-8b9e-3f1d8a1c7a11"


def test_format() -> None:
    argv = (
        "cryptsetup", "luksFormat", "--batch-mode", "--type=luks2",
        "--cipher=aes-xts-plain64", "--key-size=512", "--integrity=hmac-sha256",
        "--hash=sha256", "--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000", "--sector-size=4096",
        "--luks2-metadata-size=16k", "--luks2-keyslots-size=524288", "--offset=8192",
        f"--uuid={UUID}", "--key-file=-", "/dev/vda2",
    )  # fmt: skip
    assert format_command(VOLUME, uuid=UUID) == Command(argv, 900.0)
    plain = format_command(VOLUME, uuid=UUID, integrity=False, key_file="/proc/self/fd/7").argv
    assert plain == (
        *(word for word in argv[:-3] if not word.startswith("--integrity")),
        "--volume-key-file=/proc/self/fd/7", *argv[-3:],
    )  # fmt: skip


def test_open() -> None:
    argv = ("cryptsetup", "open", "--type=luks2", "--key-file=-")
    end = ("/dev/vda2", "machine-config")
    assert open_command(VOLUME, header=None) == Command((*argv, *end), 900.0, success=None)
    header = Path("/run/machineos/luks-header")
    detached = (*argv, "--header=/run/machineos/luks-header", *end)
    assert open_command(VOLUME, header=header) == Command(detached, 900.0, success=None)
    assert VOLUME.mapped == Path("/dev/mapper/machine-config")


def test_close() -> None:
    argv = ("cryptsetup", "close", "machine-config")
    assert close_command("machine-config") == Command(argv, 900.0)


def test_only_success_has_opened_it() -> None:
    assert check_opened(VOLUME, Result((), 0, b"", b"warning")) == Path(
        "/dev/mapper/machine-config"
    )
    for status in (1, 2, 5, -9):
        with pytest.raises(VerificationError) as caught:
            check_opened(VOLUME, Result((), status, b"", b" " + b"a" * 300 + b"end\n"))
        complaint = "a" * 297 + "end"
        assert caught.value.message == (
            f"/dev/vda2: does not open with this machine's key: {complaint}"
        )


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Formatted as ours, but for the integrity."""
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(16 << 20)
    argv = format_command(LuksVolume(path, "x"), uuid=UUID).argv
    run([arg for arg in argv if not arg.startswith("--integrity")], input=b"secret", timeout=60)
    return path


@pytest.mark.tool("cryptsetup")
def test_nothing_of_luks_lies_where_our_record_is(image: Path) -> None:
    data = json.loads(
        run(["cryptsetup", "luksDump", "--dump-json-metadata", image], timeout=PATIENCE).text
    )
    ends = [0]
    for slot in data["keyslots"].values():
        area = slot["area"]
        ends.append(int(area["offset"]) + int(area["size"]))
    assert max(ends) > 32768
    # The whole region that LUKS may use for key slots, now or after a change of keys.
    metadata = 2 * (16 << 10)
    assert int(data["config"]["keyslots_size"]) == KEYSLOTS_SIZE
    assert max(*ends, metadata + KEYSLOTS_SIZE) <= RECORD_OFFSET
    offsets = [int(segment["offset"]) for segment in data["segments"].values()]
    assert offsets == [HEADER_SIZE]
    assert RECORD_OFFSET + RECORD_SIZE <= HEADER_SIZE
    behind = read_header(image, HEADER_SIZE)[metadata + KEYSLOTS_SIZE :]
    assert behind == bytes(HEADER_SIZE - metadata - KEYSLOTS_SIZE)


def test_a_slot_for_encryption_and_integrity_has_room() -> None:
    """Its key has 96 bytes, and LUKS keeps 4000 stripes of it, in blocks of 4096 bytes."""
    assert KEYSLOTS_SIZE >= -(-96 * 4000 // 4096) * 4096


@pytest.mark.tool("cryptsetup")
def test_the_key_derivation_is_quick(image: Path) -> None:
    data = json.loads(
        run(["cryptsetup", "luksDump", "--dump-json-metadata", image], timeout=PATIENCE).text
    )
    (slot,) = data["keyslots"].values()
    assert (slot["kdf"]["type"], slot["kdf"]["iterations"]) == ("pbkdf2", 1000)
    assert slot["area"]["encryption"] == "aes-xts-plain64"
