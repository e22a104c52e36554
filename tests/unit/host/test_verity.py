from __future__ import annotations

import struct
from pathlib import Path

import pytest

from machineos.errors import ToolError, VerificationError
from machineos.host import verity

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


def superblock(
    *,
    signature: bytes = b"verity\0\0",
    version: int = 1,
    hash_type: int = 1,
    algorithm: bytes = b"sha256",
    data_block: int = 4096,
    hash_block: int = 4096,
    blocks: int = 16,
    salt_size: int = 32,
) -> bytes:
    return struct.pack(
        "<8sII16s32sIIQH6x256s168x",
        signature,
        version,
        hash_type,
        bytes(16),
        algorithm,
        data_block,
        hash_block,
        blocks,
        salt_size,
        b"\xab" * 32,
    )


def test_reads_the_root_hash_that_veritysetup_prints() -> None:
    assert verity.parse_format(RECORDED) == (
        "3d622efcbecc5c7a385604aef1578a2aeb620ed5ad1df248c953ab7d05c56e7b"
    )
    with pytest.raises(ToolError, match="no root hash"):
        verity.parse_format("Root hash: nonsense")


def test_reads_a_superblock() -> None:
    found = verity.parse_superblock(superblock(), offset=65536, what="layer")
    assert (found.data_blocks, found.salt) == (16, "ab" * 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"signature": b"squashfs"}, "no dm-verity data behind"),
        ({"version": 2}, "parameters"),
        ({"hash_type": 0}, "parameters"),
        ({"algorithm": b"sha1"}, "parameters"),
        ({"data_block": 512}, "parameters"),
        ({"hash_block": 1024}, "parameters"),
        ({"blocks": 15}, "covers 61440 of 65536"),
        ({"blocks": 1 << 40}, "covers"),
        ({"salt_size": 257}, "salt is too long"),
    ],
)
def test_refuses_other_superblocks(change: dict[str, int], message: str) -> None:
    with pytest.raises(VerificationError, match=message):
        verity.parse_superblock(
            superblock(**change),  # type: ignore[arg-type]
            offset=65536,
            what="layer",
        )


def test_refuses_a_missing_superblock() -> None:
    with pytest.raises(VerificationError, match="layer: has no dm-verity data"):
        verity.parse_superblock(superblock()[:100], offset=65536, what="layer")


@pytest.mark.parametrize(("blocks", "hashes"), [(1, 0), (2, 1), (128, 1), (129, 3), (16385, 132)])
def test_size_of_the_tree(blocks: int, hashes: int) -> None:
    assert verity.tree_size(blocks) == (1 + hashes) * 4096


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
    assert found == verity.Superblock(200, SALT, UUID.replace("-", ""))


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
