"""What is done to the folder of a stage after its script: missing mount points, times, its end."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.build.recipe.member import MAX_DEPTH, MAX_NAME
from machineos.build.recipe.mountpoints import mount_points
from machineos.build.recipe.program import read_program
from machineos.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from machineos.document.rules.programs import Program
    from machineos.host.pack.container import Ids

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


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


def require_shallow(tree: Path, what: str) -> None:
    """Raises: ArchiveError, unless ``tree`` is as deep at most as that of an image may be, and each
    path short enough for the kernel. Links are not followed."""
    for name, folders, files in os.walk(tree):
        depth = len(Path(name).relative_to(tree).parts)
        if depth >= MAX_DEPTH and (folders or files):
            raise ArchiveError(
                f"{what}: the script left a tree that is more than {MAX_DEPTH} folders deep"
            )
        longest = max((len(os.fsencode(child)) for child in (*folders, *files)), default=0)
        if len(os.fsencode(name)) + 1 + longest > MAX_NAME:
            raise ArchiveError(
                f"{what}: the script left a file whose path is longer than {MAX_NAME} bytes"
            )


def remove(folder: Path) -> None:
    """Take a folder away with all in it, however deep that is; links are not followed.

    What is in a folder in it comes up to ``folder`` itself first, so that two are open at most and
    no path is ever long. Raises: OSError.
    """
    token, count = secrets.token_hex(8), 0
    top = os.open(folder, _FOLDER)
    try:
        while names := os.listdir(top):  # noqa: PTH208 (a descriptor)
            for name in names:
                if _unlinked(name, top):
                    continue
                inner = os.open(name, _FOLDER, dir_fd=top)
                try:
                    for child in os.listdir(inner):  # noqa: PTH208 (a descriptor)
                        if not _unlinked(child, inner):
                            count += 1
                            os.rename(child, f"{token}-{count}", src_dir_fd=inner, dst_dir_fd=top)
                finally:
                    os.close(inner)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    folder.rmdir()


def sweep(cache: Path, prefix: str) -> None:
    """Take away the folders in ``cache`` whose name begins with ``prefix``, as builds that were
    killed left them. The caller has the lock of the cache."""
    for path in cache.glob(f"{prefix}*"):
        if path.is_dir() and not path.is_symlink():
            with suppress(PermissionError):  # root's, which is his to take away
                remove(path)


def _unlinked(name: str, parent: int) -> bool:
    """Take away what is no folder; return whether it was none."""
    if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
        return False
    os.unlink(name, dir_fd=parent)
    return True


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
