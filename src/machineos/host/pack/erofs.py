"""EROFS images, made by ``mkfs.erofs`` (erofs-utils).

Invariant: the same tree and epoch give the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.core.run import run

if TYPE_CHECKING:
    from pathlib import Path

COMPRESSION = "lz4hc"
_TIMEOUT = 3600.0
_FIXED_UUID = "6d6f7300-0000-4000-8000-65726f667300"


def argv_make(tree: Path, output: Path, *, epoch: int) -> list[str]:
    """Return the command that packs the folder ``tree`` into the new file ``output``.

    The tolerance for shared attributes is set so high that none is shared: their order would follow
    the order of the folder.
    """
    return [
        "mkfs.erofs",
        f"-z{COMPRESSION}",
        f"-T{epoch}",
        f"-U{_FIXED_UUID}",
        "-x1000000",
        "--quiet",
        str(output),
        str(tree),
    ]


def make(tree: Path, output: Path, *, epoch: int) -> None:
    """Pack the folder ``tree`` into ``output``, all times set to ``epoch`` seconds.

    Raises: ToolError, MissingToolError, ToolTimeoutError.
    """
    run(argv_make(tree, output, epoch=epoch), timeout=_TIMEOUT)


def argv_unpack(image: Path, tree: Path) -> list[str]:
    """Return the command that writes the files of ``image`` into the new folder ``tree``.

    Extended attributes are lost: ``fsck.erofs`` before 1.8 cannot write them.
    """
    return ["fsck.erofs", f"--extract={tree}", "--preserve", "-d0", str(image)]


def unpack(image: Path, tree: Path) -> None:
    """Write the files of ``image`` into the new folder ``tree``. Verify the image first.

    Raises: ToolError, MissingToolError, ToolTimeoutError.
    """
    run(argv_unpack(image, tree), timeout=_TIMEOUT)
