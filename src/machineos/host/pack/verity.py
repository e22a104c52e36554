"""dm-verity: hash trees appended to a file, made and checked by ``veritysetup``.

Invariant: what was verified here has a tree with the parameters of ``host.kernel.superblock`` that
covers every byte of the file.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from machineos.core.command import Command
from machineos.core.word import RootHash
from machineos.errors import ToolError, VerificationError
from machineos.host.kernel.superblock import (
    BLOCK,
    Superblock,
    parse_superblock,
    tree_size,
)

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.core.command import Result

_ROOT_HASH = re.compile(r"^Root hash:\s+([0-9a-f]{64})$", re.MULTILINE)
_TIMEOUT = 1800.0


def format_command(path: Path, *, data_size: int, salt: str, uuid: str) -> Command:
    """Return the command that appends superblock and tree at ``data_size``, the size of the file,
    a multiple of 4096. Same bytes, salt and uuid give the same result."""
    argv = (
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
    )
    return Command(argv, _TIMEOUT)


def verify_command(path: Path, *, data_size: int, root_hash: RootHash) -> Command:
    """Return the command that checks every block of ``path`` against ``root_hash``."""
    options = (f"--hash-offset={data_size}", str(path), str(path), root_hash)
    return Command(("veritysetup", "verify", *options), _TIMEOUT, success=None)


def version_command() -> Command:
    """Return the command that prints which ``veritysetup`` this is."""
    return Command(("veritysetup", "--version"), 60.0)


def parse_format(text: str) -> RootHash:
    """Return the root hash that ``veritysetup format`` printed. Raises: ToolError."""
    match = _ROOT_HASH.search(text)
    if match is None:
        raise ToolError(f"veritysetup format printed no root hash: {text[:200]!r}")
    return RootHash(match[1])


def parse_tree(head: bytes, *, offset: int, size: int, what: str) -> Superblock:
    """Return the superblock in ``head``, the bytes at ``offset`` of a file of ``size`` bytes.

    Raises: VerificationError when there is none, when it is not of our kind, or when there are
    bytes that its tree does not cover.
    """
    superblock = parse_superblock(head, offset=offset, what=what)
    expected = offset + tree_size(superblock.data_blocks)
    if size != expected:
        raise VerificationError(f"{what}: is {size} bytes, expected {expected}")
    return superblock


def require_match(result: Result, *, root_hash: RootHash, what: str) -> None:
    """Read what ``verify_command`` left. Raises: VerificationError when a block does not match."""
    if result.status != 0:
        reason = result.complaint[-200:]
        raise VerificationError(f"{what}: does not match its root hash {root_hash}: {reason}")
