"""squashfs images, made by ``mksquashfs`` (squashfs-tools).

Invariant: the same tree and epoch give the same bytes, whatever the order of the folder, the number
of processors, or the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.core.command import Command
from machineos.host.pack.container import LIMITS, Bind, Box, speaking

if TYPE_CHECKING:
    from pathlib import Path

COMPRESSION = "zstd"
TIMEOUT = 3600.0
_OPTIONS = (
    "-noappend", "-comp", COMPRESSION, "-xattrs", "-no-exports", "-no-progress", "-quiet",
    "-exit-on-error",
)  # fmt: skip


def argv_make(tree: Path, output: Path, *, epoch: int, keep_times: bool, owners: bool) -> list[str]:
    """Return the arguments that pack the folder ``tree`` into the new file ``output``.

    All times become ``epoch`` seconds, unless ``keep_times``; all owners root, unless ``owners``.
    """
    times = () if keep_times else ("-all-time", str(epoch))
    root = () if owners else ("-all-root",)
    argv = ("mksquashfs", str(tree), str(output), *_OPTIONS, *times, *root)
    return [*argv, "-mkfs-time", str(epoch)]


def make_from_tar_command(output: Path, *, mode: int, newest: int) -> Command:
    """Return the command that packs the tar stream on its standard input into ``output``.

    The root folder gets ``mode``, the owner 0:0 and the time ``newest``, which must not be in the
    future; times after it become it. mksquashfs 4.5 knows no other way to a root whose time is not
    that of the run: its -root-uid, -root-gid and -root-time do nothing for a tar archive.
    """
    argv = ("mksquashfs", "-", str(output), "-tar", *_OPTIONS, "-root-mode", f"{mode:o}")
    return Command(argv, TIMEOUT, env=(("SOURCE_DATE_EPOCH", str(newest)),))


def tar_box(image: Path) -> Box:
    """Return the run that writes the content of ``image`` as a tar archive to standard output:
    owners, attributes, device nodes; the root folder is its first member."""
    script = "sqfs2tar --no-skip --root-becomes . /image"
    return Box(speaking(script), binds=(Bind(image, "/image"),), limits=LIMITS, needs=("sqfs2tar",))


def view_command(image: Path, tree: Path) -> Command:
    """Return the command that writes the files of ``image`` into the new folder ``tree`` for an
    ordinary user to look at: owners, devices and attributes are left out.

    unsquashfs 4.5 calls what it may not make an error, though not a fatal one: exit code 2.
    """
    argv = ("unsquashfs", "-no-progress", "-quiet", "-no-xattrs", "-no-wildcards", "-force")
    return Command((*argv, "-dest", str(tree), str(image)), TIMEOUT, success=(0, 2))


def version_command() -> Command:
    """Return the command that prints which ``mksquashfs`` this is, in its first line."""
    return Command(("mksquashfs", "-version"), 60.0)
