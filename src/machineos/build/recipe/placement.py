"""Files and folders copied into a tree of files that somebody else made.

Invariant: what is opened for writing is opened by a name in a folder that is open already, never
through a link; links of the tree that stand in the way are read first, and followed as if the tree
were the root. So nothing outside the tree is written, whatever is in it.
"""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.errors import VerificationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MAX_LINKS = 40
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Placement:
    """Where copies go, and what they become: owned by ``owner`` (user and group), all their times
    ``epoch``, modes as they were."""

    tree: Path
    owner: tuple[int, int]
    epoch: int

    def put(self, source: Path, path: str) -> None:
        """Copy the file or folder ``source`` to the absolute ``path`` of the tree; what a folder
        there holds stays. Links are copied as links; attributes are not copied.

        Raises: VerificationError when the way leads through something that is no folder, or a
        folder is where a file should be.
        """
        if source.is_dir() and not source.is_symlink():
            with self._folder(path) as folder:
                for child in sorted(source.iterdir()):
                    self.put(child, f"{path}/{child.name}")
                os.fchown(folder, *self.owner)
                os.fchmod(folder, stat.S_IMODE(source.stat().st_mode))
                os.utime(folder, (self.epoch, self.epoch))
            return
        parent, _, name = path.rstrip("/").rpartition("/")
        with self._folder(parent) as folder:
            with suppress(FileNotFoundError):
                if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                    raise VerificationError(f"{path} is a folder, and a file should be there")
                os.unlink(name, dir_fd=folder)
            if source.is_symlink():
                os.symlink(source.readlink(), name, dir_fd=folder)
                os.chown(name, *self.owner, dir_fd=folder, follow_symlinks=False)
            else:
                self._copy(source, folder, name)
            times = (self.epoch, self.epoch)
            os.utime(name, times, dir_fd=folder, follow_symlinks=False)

    def mark(self, path: str, owner: tuple[int, int], mode: int | None) -> None:
        """Give what was put at ``path`` another owner, and ``mode`` if that is not None."""
        parent, _, name = path.rstrip("/").rpartition("/")
        with self._folder(parent) as folder:
            os.chown(name, *owner, dir_fd=folder, follow_symlinks=False)
            if mode is not None:
                os.chmod(name, mode, dir_fd=folder)

    def is_folder(self, path: str) -> bool:
        """Whether there is a folder at ``path``, or a link to one."""
        return resolve_in(self.tree, path).is_dir()

    def _copy(self, source: Path, folder: int, name: str) -> None:
        with source.open("rb") as file, os.fdopen(
            os.open(name, _NEW, 0o600, dir_fd=folder), "wb"
        ) as target:  # fmt: skip
            shutil.copyfileobj(file, target, 1 << 20)
            target.flush()
            os.fchown(target.fileno(), *self.owner)
            os.fchmod(target.fileno(), stat.S_IMODE(os.fstat(file.fileno()).st_mode))

    @contextmanager
    def _folder(self, path: str) -> Iterator[int]:
        """Open the folder at ``path``, made where it is missing."""
        here = os.open(self.tree, _FOLDER)
        try:
            for part in resolve_in(self.tree, path).relative_to(self.tree).parts:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=here)
                    os.chown(part, *self.owner, dir_fd=here, follow_symlinks=False)
                try:
                    inner = os.open(part, _FOLDER, dir_fd=here)
                except NotADirectoryError as error:
                    raise VerificationError(f"{path}: {part} is no folder") from error
                os.close(here)
                here = inner
            yield here
        finally:
            os.close(here)


def resolve_in(tree: Path, path: str) -> Path:
    """Return where ``path`` leads when ``tree`` is the root: links and ``..`` stay inside.

    The result need not exist; it has no symbolic link in it. Raises: VerificationError for a circle
    of links.
    """
    left = [part for part in path.split("/") if part not in {"", "."}]
    done: list[str] = []
    links = 0
    while left:
        part = left.pop(0)
        if part == "..":
            done = done[:-1]
            continue
        here = tree.joinpath(*done, part)
        if not here.is_symlink():
            done.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise VerificationError(f"{path}: too many symbolic links")
        target = os.fspath(here.readlink())
        if target.startswith("/"):
            done = []
        left = [part for part in target.split("/") if part not in {"", "."}] + left
    return tree.joinpath(*done)
