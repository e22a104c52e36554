"""dm-verity: hash trees appended to a file, made and checked by ``veritysetup``.

Invariant: what was verified here has a tree with the parameters of ``host.kernel.superblock`` that
covers every byte of the file.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from machineos.core.run import run
from machineos.errors import ToolError, VerificationError
from machineos.host.kernel.superblock import (
    BLOCK,
    VERITY,
    Superblock,
    parse_superblock,
    round_up,
    tree_size,
)

if TYPE_CHECKING:
    from pathlib import Path

_ROOT_HASH = re.compile(r"^Root hash:\s+([0-9a-f]{64})$", re.MULTILINE)
_TIMEOUT = 1800.0


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
        superblock = parse_superblock(file.read(VERITY.size), offset=offset, what=what)
    expected = offset + tree_size(superblock.data_blocks)
    if path.stat().st_size != expected:
        raise VerificationError(f"{what}: is {path.stat().st_size} bytes, expected {expected}")
    argv = argv_verify(path, data_size=offset, root_hash=root_hash)
    result = run(argv, timeout=_TIMEOUT, check=False)
    if result.status != 0:
        reason = result.stderr.decode("utf-8", "replace").strip()[-200:]
        raise VerificationError(f"{what}: does not match its root hash {root_hash}: {reason}")
    return superblock
