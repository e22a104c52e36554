"""EROFS images, made by ``mkfs.erofs`` (erofs-utils).

Invariant: the same tree and epoch give the same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.core.command import Command

if TYPE_CHECKING:
    from pathlib import Path

COMPRESSION = "lz4hc"
_TIMEOUT = 3600.0
_FIXED_UUID = "6d6f7300-0000-4000-8000-65726f667300"


def make_command(tree: Path, output: Path, *, epoch: int) -> Command:
    """Return the command that packs the folder ``tree`` into the new file ``output``, all times
    set to ``epoch`` seconds.

    The tolerance for shared attributes is set so high that none is shared: their order would follow
    the order of the folder.
    """
    options = (f"-z{COMPRESSION}", f"-T{epoch}", f"-U{_FIXED_UUID}", "-x1000000", "--quiet")
    return Command(("mkfs.erofs", *options, str(output), str(tree)), _TIMEOUT)


def unpack_command(image: Path, tree: Path, *, owners: bool = True) -> Command:
    """Return the command that writes the files of ``image``, verified before, into the new folder
    ``tree``; with their ``owners``, for which it has to run as root.

    Extended attributes are lost: ``fsck.erofs`` before 1.8 cannot write them.
    """
    keep = ("--preserve",) if owners else ("--no-preserve-owner", "--preserve-perms")
    argv = ("fsck.erofs", f"--extract={tree}", *keep, "-d0", str(image))
    return Command(argv, _TIMEOUT)


def view_command(image: Path, tree: Path) -> Command:
    """Return the command that writes the files of ``image`` into the folder ``tree`` for an
    ordinary user to look at."""
    argv = ("fsck.erofs", f"--extract={tree}", "--no-preserve", "--overwrite", "-d0", str(image))
    return Command(argv, _TIMEOUT)
