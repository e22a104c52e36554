from __future__ import annotations

from pathlib import Path

import pytest

from machineos.core.command import Command, Result
from machineos.core.word import RootHash
from machineos.errors import ToolError, VerificationError
from machineos.host.kernel.superblock import Superblock
from machineos.host.pack import tools, verity

SALT = "ab" * 32
HASH = RootHash("cd" * 32)
UUID = "6d6f7300-0000-4000-8000-000000000001"

# Printed by veritysetup 2.6.1 for 64 KiB of zeros, with SALT and UUID; only the path is shortened.
RECORDED = """\
VERITY header information for data
UUID:            \t6d6f7300-0000-4000-8000-000000000001
Hash type:       \t1
Data blocks:     \t16
Data block size: \t4096
Hash blocks:     \t1
Hash block size: \t4096
Hash algorithm:  \tsha256
Salt:            \tabababababababababababababababababababababababababababababababab
Root hash:      \t3d622efcbecc5c7a385604aef1578a2aeb620ed5ad1df248c953ab7d05c56e7b
"""


def test_reads_the_root_hash_that_veritysetup_prints() -> None:
    found = verity.parse_format(RECORDED)
    assert isinstance(found, RootHash)
    assert found == "3d622efcbecc5c7a385604aef1578a2aeb620ed5ad1df248c953ab7d05c56e7b"
    with pytest.raises(ToolError, match="no root hash"):
        verity.parse_format("Root hash: nonsense")


def test_the_commands() -> None:
    assert verity.format_command(Path("p"), data_size=8192, salt="5a", uuid="u") == Command(
        (
            "veritysetup", "format", "--hash=sha256", "--format=1", "--data-block-size=4096",
            "--hash-block-size=4096", "--data-blocks=2", "--hash-offset=8192", "--salt=5a",
            "--uuid=u", "p", "p",
        ),
        1800.0,
    )  # fmt: skip
    assert verity.verify_command(Path("p"), data_size=8192, root_hash=HASH) == Command(
        ("veritysetup", "verify", "--hash-offset=8192", "p", "p", HASH), 1800.0, success=None
    )


def test_only_status_0_is_a_match() -> None:
    def left(status: int, stderr: bytes) -> Result:
        return Result(("veritysetup",), status, b"", stderr)

    verity.require_match(left(0, b"noise"), root_hash=HASH, what="layer")
    for status in (1, -9):
        with pytest.raises(VerificationError) as caught:
            verity.require_match(left(status, b" a" * 150 + b" \n"), root_hash=HASH, what="layer")
        reason = (" a" * 150)[-200:]
        assert caught.value.message == f"layer: does not match its root hash {HASH}: {reason}"


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, RootHash]:
    path = tmp_path / "data"
    path.write_bytes(bytes(range(256)) * 16 * 200)
    root_hash = tools.format_verity(path, data_size=819200, salt=SALT, uuid=UUID)
    return path, root_hash


@pytest.mark.tool("veritysetup")
def test_format_is_repeatable_and_verifies(made: tuple[Path, RootHash], tmp_path: Path) -> None:
    path, root_hash = made
    other = tmp_path / "other"
    other.write_bytes(bytes(range(256)) * 16 * 200)
    again = tools.format_verity(other, data_size=819200, salt=SALT, uuid=UUID)
    assert again == root_hash
    assert other.read_bytes() == path.read_bytes()
    found = tools.verify_verity(path, data_size=819100, root_hash=root_hash, what="layer")
    assert found == Superblock(200, SALT, UUID.replace("-", ""))


@pytest.mark.tool("veritysetup")
@pytest.mark.parametrize("where", [0, 400_000, 819_199, 819_200 + 4096, 819_200 + 3 * 4096])
def test_one_flipped_bit_is_found(made: tuple[Path, RootHash], where: int) -> None:
    path, root_hash = made
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)
    with pytest.raises(VerificationError, match="layer: does not match its root hash"):
        tools.verify_verity(path, data_size=819200, root_hash=root_hash, what="layer")


@pytest.mark.tool("veritysetup")
def test_another_salt_root_hash_or_size_is_found(made: tuple[Path, RootHash]) -> None:
    path, root_hash = made
    with pytest.raises(VerificationError, match="does not match"):
        tools.verify_verity(path, data_size=819200, root_hash=RootHash("1" * 64), what="layer")
    with pytest.raises(VerificationError, match="no dm-verity data behind"):
        tools.verify_verity(path, data_size=819200 - 4096, root_hash=root_hash, what="layer")
    data = path.read_bytes()
    path.write_bytes(data + bytes(4096))
    with pytest.raises(VerificationError, match="is 839680 bytes, expected 835584"):
        tools.verify_verity(path, data_size=819200, root_hash=root_hash, what="layer")
    path.write_bytes(data[: 819200 + 88] + b"\x01" + data[819200 + 89 :])
    with pytest.raises(VerificationError, match="does not match"):
        tools.verify_verity(path, data_size=819200, root_hash=root_hash, what="layer")
