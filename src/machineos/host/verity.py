"""dm-verity: hash trees appended to a file, made and checked by ``veritysetup``.

Owns the one set of parameters that we accept (dm-verity on-disk format version 1, hash type 1,
sha256, blocks of 4096, superblock in front of the tree). Invariant: a superblock that parses covers
every byte before it, so there is no part of the file that a root hash does not speak for.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.core.run import run
from machineos.errors import ToolError, VerificationError

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 4096
_SUPERBLOCK = struct.Struct("<8sII16s32sIIQH6x256s168x")
_ROOT_HASH = re.compile(r"^Root hash:\s+([0-9a-f]{64})$", re.MULTILINE)
_TIMEOUT = 1800.0
_PER_BLOCK = BLOCK // 32


@dataclass(frozen=True, slots=True)
class Superblock:
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
    if len(data) < _SUPERBLOCK.size:
        raise VerificationError(f"{what}: has no dm-verity data")
    fields = _SUPERBLOCK.unpack_from(data)
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


def argv_format(path: Path, *, data_size: int, salt: str, uuid: str) -> list[str]:
    """Return the command that appends superblock and tree at ``data_size``, a multiple of 4096."""
    return [
        "veritysetup",
        "format",
        "--hash=sha256",
        "--format=1",
        f"--data-block-size={BLOCK}",
        f"--hash-block-size={BLOCK}",
        f"--data-blocks={data_size // BLOCK}",
        f"--hash-offset={data_size}",
        f"--salt={salt}",
        f"--uuid={uuid}",
        str(path),
        str(path),
    ]


def argv_verify(path: Path, *, data_size: int, root_hash: str) -> list[str]:
    """Return the command that checks every block of ``path`` against ``root_hash``."""
    return ["veritysetup", "verify", f"--hash-offset={data_size}", str(path), str(path), root_hash]


def parse_format(text: str) -> str:
    """Return the root hash that ``veritysetup format`` printed. Raises: ToolError."""
    match = _ROOT_HASH.search(text)
    if match is None:
        raise ToolError(f"veritysetup format printed no root hash: {text[:200]!r}")
    return match[1]


def format_tree(path: Path, *, data_size: int, salt: str, uuid: str) -> str:
    """Append a hash tree to ``path`` and return its root hash.

    ``data_size`` is the size of the file, a multiple of 4096. Same bytes, salt and uuid give the
    same result. Raises: ToolError, MissingToolError.
    """
    argv = argv_format(path, data_size=data_size, salt=salt, uuid=uuid)
    return parse_format(run(argv, timeout=_TIMEOUT).text)


def verify_tree(path: Path, *, data_size: int, root_hash: str, what: str) -> Superblock:
    """Check every block of ``path``, whose file system takes ``data_size`` bytes.

    Raises: VerificationError when there is no tree, when it is not of our kind, when it does not
    match, or when there are bytes that it does not cover; MissingToolError.
    """
    offset = round_up(data_size)
    with path.open("rb") as file:
        file.seek(offset)
        superblock = parse_superblock(file.read(_SUPERBLOCK.size), offset=offset, what=what)
    expected = offset + tree_size(superblock.data_blocks)
    if path.stat().st_size != expected:
        raise VerificationError(f"{what}: is {path.stat().st_size} bytes, expected {expected}")
    argv = argv_verify(path, data_size=offset, root_hash=root_hash)
    result = run(argv, timeout=_TIMEOUT, check=False)
    if result.status != 0:
        reason = result.stderr.decode("utf-8", "replace").strip()[-200:]
        raise VerificationError(f"{what}: does not match its root hash {root_hash}: {reason}")
    return superblock
