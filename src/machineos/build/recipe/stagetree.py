"""What is done to the folder of a stage after its script: missing mount points, times."""

from __future__ import annotations

import os
import stat
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.build.recipe.mountpoints import mount_points
from machineos.build.recipe.program import read_program

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from machineos.document.rules.programs import Program
    from machineos.host.pack.container import Ids


def add_mount_points(tree: Path, volumes: Iterable[str], *, epoch: int, ids: Ids) -> None:
    """Make the missing folders in ``tree``, owned by the root of a container with ``ids``;
    ``volumes`` are those that the image declares.

    Links are not followed: where one is in the way, nothing is made.
    """
    for parts, mode in mount_points(volumes):
        folder = tree
        for part in parts:
            if folder.is_symlink():
                break
            parent, folder = folder, folder / part
            if not os.path.lexists(folder):
                before = parent.stat()
                folder.mkdir()
                folder.chmod(0o755)
                os.chown(folder, ids.uid, ids.gid)
                os.utime(folder, (epoch, epoch))
                # The time of the folder above would say when this ran, and so change the image.
                os.utime(parent, ns=(before.st_atime_ns, before.st_mtime_ns))
        else:
            if mode is not None and folder.is_dir() and not folder.is_symlink():
                folder.chmod(mode)


def clamp(tree: Path, epoch: int) -> None:
    """Bring every time in ``tree`` that is later than ``epoch`` back to it."""
    for path in _walk(tree):
        status = path.lstat()
        if status.st_mtime > epoch or status.st_mtime < 0:
            os.utime(path, (epoch, epoch), follow_symlinks=False)
    os.utime(tree, (epoch, epoch))


def programs(tree: Path) -> Iterator[Program]:
    """Yield what the files in ``tree`` are that a machine could run; links are not followed."""
    for path in _walk(tree):
        if not stat.S_ISREG(path.lstat().st_mode):
            continue
        with path.open("rb", buffering=0) as file:
            name = f"/{path.relative_to(tree)}"
            found = read_program(name, partial(_pread, file.fileno()))
        if found is not None:
            yield found


def _pread(descriptor: int, offset: int, size: int) -> bytes:
    """An offset may be any number of 64 bits, and no file is that long."""
    return os.pread(descriptor, size, offset) if offset < 1 << 62 else b""


def _walk(folder: Path) -> Iterator[Path]:
    for name, folders, files in os.walk(folder):
        for child in (*folders, *files):
            yield Path(name) / child
