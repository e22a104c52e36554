"""squashfs images, made by ``mksquashfs`` (squashfs-tools).

Invariant: the same tree and epoch give the same bytes, whatever the order of the folder, the number
of processors, or the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.core.run import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COMPRESSION = "zstd"
_TIMEOUT = 3600.0
_OPTIONS = (
    "-noappend", "-comp", COMPRESSION, "-xattrs", "-no-exports", "-no-progress", "-quiet",
    "-exit-on-error",
)  # fmt: skip


def argv_make(tree: Path, output: Path, *, epoch: int, keep_times: bool = False) -> list[str]:
    """Return the command that packs the folder ``tree`` into the new file ``output``."""
    times = [] if keep_times else ["-all-time", str(epoch)]
    return ["mksquashfs", str(tree), str(output), *_OPTIONS, *times, "-mkfs-time", str(epoch)]


def argv_make_from_tar(output: Path, *, mode: int) -> list[str]:
    """Return the command that packs the tar stream on standard input into ``output``."""
    return ["mksquashfs", "-", str(output), "-tar", *_OPTIONS, "-root-mode", f"{mode:o}"]


def make(tree: Path, output: Path, *, epoch: int, keep_times: bool = False) -> None:
    """Pack the folder ``tree`` into ``output``, all times ``epoch`` seconds unless ``keep_times``.

    Raises: ToolError, MissingToolError, ToolTimeoutError.
    """
    run(argv_make(tree, output, epoch=epoch, keep_times=keep_times), timeout=_TIMEOUT)


def make_from_tar(feed: Callable[[int], None], output: Path, *, mode: int, newest: int) -> None:
    """Pack a tar archive into ``output``; ``feed`` writes it to the descriptor that it is given.

    The root folder gets ``mode``, the owner 0:0 and the time ``newest``, which must not be in the
    future; times after it become it. mksquashfs 4.5 knows no other way to a root whose time is not
    that of the run: its -root-uid, -root-gid and -root-time do nothing for a tar archive.
    Raises: ToolError, MissingToolError, ToolTimeoutError, and what ``feed`` raises.
    """
    env = {"SOURCE_DATE_EPOCH": str(newest)}
    run(argv_make_from_tar(output, mode=mode), feed=feed, env=env, timeout=_TIMEOUT)


def argv_unpack(image: Path, tree: Path) -> list[str]:
    """Return the command that writes the files of ``image`` into the new folder ``tree``."""
    flags = ["-no-progress", "-quiet", "-strict-errors", "-no-wildcards", "-dest", str(tree)]
    return ["unsquashfs", *flags, str(image)]


def unpack(image: Path, tree: Path) -> None:
    """Write the files of ``image`` into the new folder ``tree``. Verify the image first.

    Raises: ToolError, MissingToolError, ToolTimeoutError.
    """
    run(argv_unpack(image, tree), timeout=_TIMEOUT)
