from __future__ import annotations

from pathlib import Path

import pytest

from machineos.errors import ToolError, VerificationError
from machineos.host.kernel.superblock import Superblock
from machineos.host.pack import verity

SALT = "ab" * 32
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
    assert verity.parse_format(RECORDED) == (
        "3d622efcbecc5c7a385604aef1578a2aeb620ed5ad1df248c953ab7d05c56e7b"
    )
    with pytest.raises(ToolError, match="no root hash"):
        verity.parse_format("Root hash: nonsense")


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "data"
    path.write_bytes(bytes(range(256)) * 16 * 200)
    root_hash = verity.format_tree(path, data_size=819200, salt=SALT, uuid=UUID)
    return path, root_hash


@pytest.mark.tool("veritysetup")
def test_format_is_repeatable_and_verifies(made: tuple[Path, str], tmp_path: Path) -> None:
    path, root_hash = made
    other = tmp_path / "other"
    other.write_bytes(bytes(range(256)) * 16 * 200)
    again = verity.format_tree(other, data_size=819200, salt=SALT, uuid=UUID)
    assert again == root_hash
    assert other.read_bytes() == path.read_bytes()
    found = verity.verify_tree(path, data_size=819100, root_hash=root_hash, what="layer")
    assert found == Superblock(200, SALT, UUID.replace("-", ""))


@pytest.mark.tool("veritysetup")
@pytest.mark.parametrize("where", [0, 400_000, 819_199, 819_200 + 4096, 819_200 + 3 * 4096])
def test_one_flipped_bit_is_found(made: tuple[Path, str], where: int) -> None:
    path, root_hash = made
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)
    with pytest.raises(VerificationError, match="layer: does not match its root hash"):
        verity.verify_tree(path, data_size=819200, root_hash=root_hash, what="layer")


@pytest.mark.tool("veritysetup")
def test_another_salt_root_hash_or_size_is_found(made: tuple[Path, str]) -> None:
    path, root_hash = made
    with pytest.raises(VerificationError, match="does not match"):
        verity.verify_tree(path, data_size=819200, root_hash="1" * 64, what="layer")
    with pytest.raises(VerificationError, match="no dm-verity data behind"):
        verity.verify_tree(path, data_size=819200 - 4096, root_hash=root_hash, what="layer")
    data = path.read_bytes()
    path.write_bytes(data + bytes(4096))
    with pytest.raises(VerificationError, match="is 839680 bytes, expected 835584"):
        verity.verify_tree(path, data_size=819200, root_hash=root_hash, what="layer")
    path.write_bytes(data[: 819200 + 88] + b"\x01" + data[819200 + 89 :])
    with pytest.raises(VerificationError, match="does not match"):
        verity.verify_tree(path, data_size=819200, root_hash=root_hash, what="layer")
