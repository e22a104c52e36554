from __future__ import annotations

import struct
from typing import TypedDict

import pytest

from machineos.errors import VerificationError
from machineos.host.kernel import superblock

SALT = "ab" * 32


def squashfs(
    *, magic: bytes = b"hsqs", version: tuple[int, int] = (4, 0), size: int = 4096
) -> bytes:
    data = bytearray(96)
    data[:4] = magic
    struct.pack_into("<HH", data, 28, *version)
    struct.pack_into("<Q", data, 40, size)
    return bytes(data)


def test_reads_the_size_of_a_squashfs() -> None:
    assert superblock.squashfs_size(squashfs(size=12345), what="x") == 12345


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not a squashfs image"),
        (squashfs()[:95], "is not a squashfs image"),
        (squashfs(magic=b"sqsh"), "is not a squashfs image"),
        (squashfs(version=(3, 1)), "squashfs 3.1"),
        (squashfs(size=95), "claims 95 bytes"),
    ],
)
def test_refuses_other_squashfs(data: bytes, message: str) -> None:
    with pytest.raises(VerificationError, match=f"x: .*{message}"):
        superblock.squashfs_size(data, what="x")


def erofs(
    *, magic: int = 0xE0F5E1E2, bits: int = 12, blocks: int = 3, features: int = 0, others: int = 0
) -> bytes:
    data = bytearray(superblock.EROFS_HEADER)
    struct.pack_into("<IxxH", data, 1024 + 80, features, others)
    struct.pack_into("<I", data, 1024, magic)
    data[1024 + 12] = bits
    struct.pack_into("<I", data, 1024 + 36, blocks)
    return bytes(data)


def test_reads_the_size_of_an_erofs() -> None:
    assert superblock.erofs_size(erofs(), what="x") == 3 * 4096


@pytest.mark.parametrize(
    "data",
    [b"", erofs()[:-1], erofs(magic=1), erofs(bits=40), erofs(bits=0), erofs(blocks=0)],
)
def test_refuses_other_erofs(data: bytes) -> None:
    with pytest.raises(VerificationError, match="x: "):
        superblock.erofs_size(data, what="x")


@pytest.mark.attack(
    "image",
    "an EROFS image that takes part of its files from other devices, which root chooses",
    "refused wherever a layer is looked at: publish, the installer, the machine",
)
@pytest.mark.parametrize("data", [erofs(features=0x8), erofs(features=0xD), erofs(others=1)])
def test_an_erofs_is_on_one_device(data: bytes) -> None:
    with pytest.raises(VerificationError, match="x: part of its files would lie on other devices"):
        superblock.erofs_size(data, what="x")
    assert superblock.erofs_size(erofs(features=0x7), what="x") == 3 * 4096


class Fields(TypedDict, total=False):
    """The arguments of ``verity``."""

    signature: bytes
    version: int
    hash_type: int
    algorithm: bytes
    data_block: int
    hash_block: int
    blocks: int
    salt_size: int


def verity(
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


def test_reads_a_superblock() -> None:
    found = superblock.parse_superblock(verity(), offset=65536, what="layer")
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
def test_refuses_other_superblocks(change: Fields, message: str) -> None:
    with pytest.raises(VerificationError, match=message):
        superblock.parse_superblock(verity(**change), offset=65536, what="layer")


def test_refuses_a_missing_superblock() -> None:
    with pytest.raises(VerificationError, match="layer: has no dm-verity data"):
        superblock.parse_superblock(verity()[:100], offset=65536, what="layer")


@pytest.mark.parametrize(("blocks", "hashes"), [(1, 0), (2, 1), (128, 1), (129, 3), (16385, 132)])
def test_size_of_the_tree(blocks: int, hashes: int) -> None:
    assert superblock.tree_size(blocks) == (1 + hashes) * 4096
