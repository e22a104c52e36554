"""Superblocks: where a file system in a file ends, and the hash tree behind it begins.

Owns the one set of dm-verity parameters that we accept (on-disk format version 1, hash type 1,
sha256, blocks of 4096, superblock in front of the tree). Invariant: a superblock that parses covers
every byte before it, so there is no part of the file that a root hash does not speak for. Pure.
"""

from __future__ import annotations

import struct

import msgspec

from machineos.errors import VerificationError

BLOCK = 4096
SQUASHFS_HEADER = 96
EROFS_HEADER = 1024 + 128
VERITY = struct.Struct("<8sII16s32sIIQH6x256s168x")
_SQUASHFS_MAGIC = b"hsqs"
_EROFS_MAGIC = 0xE0F5E1E2
_DEVICE_TABLE = 0x8  # EROFS_FEATURE_INCOMPAT_DEVICE_TABLE
_PER_BLOCK = BLOCK // 32


class Superblock(msgspec.Struct, frozen=True):
    """The parameters of a hash tree; ``salt`` in hex, ``data_blocks`` of 4096 bytes."""

    data_blocks: int
    salt: str
    uuid: str


def round_up(size: int) -> int:
    """Return ``size`` rounded up to whole blocks: where the superblock is."""
    return -(-size // BLOCK) * BLOCK


def tree_size(data_blocks: int) -> int:
    """Return the bytes of superblock and hash tree for that much data."""
    total, level = 1, data_blocks
    while level > 1:
        level = -(-level // _PER_BLOCK)
        total += level
    return total * BLOCK


def parse_superblock(data: bytes, *, offset: int, what: str) -> Superblock:
    """Read the superblock found ``offset`` bytes into the file ``what``.

    Raises: VerificationError unless it is exactly of our kind and covers all ``offset`` bytes.
    """
    if len(data) < VERITY.size:
        raise VerificationError(f"{what}: has no dm-verity data")
    fields = VERITY.unpack_from(data)
    signature, version, hash_type, uuid, algorithm, data_block, hash_block, blocks, size, salt = (
        fields
    )
    if signature != b"verity\0\0":
        raise VerificationError(f"{what}: has no dm-verity data behind its file system")
    shape = (version, hash_type, algorithm.rstrip(b"\0"), data_block, hash_block)
    if shape != (1, 1, b"sha256", BLOCK, BLOCK):
        raise VerificationError(f"{what}: its dm-verity parameters are not the only ones allowed")
    if size > len(salt):
        raise VerificationError(f"{what}: its dm-verity salt is too long")
    if blocks * BLOCK != offset:
        raise VerificationError(f"{what}: its hash tree covers {blocks * BLOCK} of {offset} bytes")
    return Superblock(blocks, salt[:size].hex(), uuid.hex())


def data_size(filesystem: str, header: bytes, *, what: str) -> int:
    """Return the bytes that a file system uses, from the first ``BLOCK`` bytes of its file.

    ``filesystem`` is ``squashfs`` or ``erofs``. Raises: VerificationError.
    """
    parse = squashfs_size if filesystem == "squashfs" else erofs_size
    return parse(header, what=what)


def squashfs_size(header: bytes, *, what: str) -> int:
    """Return the bytes that a squashfs uses, from its first ``SQUASHFS_HEADER`` bytes (format 4.0,
    bytes 40 to 47 of the superblock). Raises: VerificationError."""
    if len(header) < SQUASHFS_HEADER or header[:4] != _SQUASHFS_MAGIC:
        raise VerificationError(f"{what}: is not a squashfs image")
    major, minor = struct.unpack_from("<HH", header, 28)
    if (major, minor) != (4, 0):
        raise VerificationError(f"{what}: is squashfs {major}.{minor}, only 4.0 is known")
    (size,) = struct.unpack_from("<Q", header, 40)
    if size < SQUASHFS_HEADER:
        raise VerificationError(f"{what}: its squashfs superblock claims {size} bytes")
    return int(size)


def erofs_size(header: bytes, *, what: str) -> int:
    """Return the bytes that an EROFS uses, from its first ``EROFS_HEADER`` bytes (the superblock is
    1024 bytes in: magic, at 12 log2 of the block size, at 36 the number of blocks, at 80 what a
    kernel has to know, at 86 the number of other devices).

    One with other devices is refused: whoever mounts it chooses those, and nobody vouches for them.
    Raises: VerificationError.
    """
    if len(header) < EROFS_HEADER or struct.unpack_from("<I", header, 1024)[0] != _EROFS_MAGIC:
        raise VerificationError(f"{what}: is not an EROFS image")
    bits = header[1024 + 12]
    (blocks,) = struct.unpack_from("<I", header, 1024 + 36)
    if not 9 <= bits <= 12 or blocks == 0:
        raise VerificationError(f"{what}: its EROFS superblock is not acceptable")
    features, others = struct.unpack_from("<IxxH", header, 1024 + 80)
    if others or features & _DEVICE_TABLE:
        raise VerificationError(f"{what}: part of its files would lie on other devices")
    return int(blocks) << bits
