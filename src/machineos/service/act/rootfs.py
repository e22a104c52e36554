"""Looking into the root of an image without ever leaving it.

Every component of a path is opened relative to the one before and never through a symbolic link, so
nothing an image contains can make us read, or mount over, a file of the host (CVE-2025-31133,
CVE-2019-5736 and their kin: peers.md section 5, row 23).
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from machineos.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

MAX_READ = 1 << 20
_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def folder_problem(root: Path, path: str) -> str:
    """Return why the absolute ``path`` is not a real folder of the image, "" when it is one."""
    current = "/"
    with _opened(root) as descriptor:
        for name in _components(path):
            current = f"{current.rstrip('/')}/{name}"
            try:
                step = os.open(name, _STEP, dir_fd=descriptor)
            except FileNotFoundError:
                return f"{current} does not exist"
            except OSError as error:
                return f"{current}: {error.strerror}"
            os.dup2(step, descriptor, inheritable=False)
            os.close(step)
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISLNK(mode):
                return f"{current} is a symbolic link"
            if not stat.S_ISDIR(mode):
                return f"{current} is not a folder"
    return ""


def require_folders(root: Path, paths: Sequence[str], *, image: str) -> None:
    """Raise ArchiveError, naming image and path, unless all ``paths`` are real folders."""
    for path in paths:
        problem = folder_problem(root, path)
        if problem:
            raise ArchiveError(
                f"image {image}: nothing can be mounted at {path}: {problem}",
                hint="the image must have a real folder there",
            )


def present_folders(root: Path, paths: Sequence[str], *, image: str) -> tuple[str, ...]:
    """Return those of ``paths`` that are real folders; absent ones are left out.

    Raises: ArchiveError for one that is there but is not a real folder.
    """
    present = []
    for path in paths:
        problem = folder_problem(root, path)
        if not problem:
            present.append(path)
        elif not problem.endswith("does not exist"):
            raise ArchiveError(
                f"image {image}: nothing can be mounted at {path}: {problem}",
                hint="the image must have a real folder there, or nothing",
            )
    return tuple(present)


def read_file(root: Path, path: str, *, image: str, limit: int = MAX_READ) -> bytes | None:
    """Return the content of a regular file of the image, None when there is none.

    Raises: ArchiveError when it, or a folder above it, is a link or something else, or too large.
    """
    *folders, name = _components(path)
    problem = folder_problem(root, "/" + "/".join(folders))
    if problem.endswith("does not exist"):
        return None
    if problem:
        raise ArchiveError(f"image {image}: {path} is not read: {problem}")
    try:
        with _opened(root, *folders) as folder:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        why = "is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise ArchiveError(f"image {image}: {path} {why}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ArchiveError(f"image {image}: {path} is not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ArchiveError(f"image {image}: {path} is larger than {limit} bytes")
    return data


def _components(path: str) -> list[str]:
    names = [name for name in path.split("/") if name]
    if not path.startswith("/") or any(name in {".", ".."} for name in names) or "\0" in path:
        raise ArchiveError(f"{path[:120]!r} is not a plain absolute path")
    return names


@contextmanager
def _opened(root: Path, *names: str) -> Iterator[int]:
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names:
            step = os.open(name, _STEP | os.O_DIRECTORY, dir_fd=descriptor)
            os.dup2(step, descriptor, inheritable=False)
            os.close(step)
        yield descriptor
    finally:
        os.close(descriptor)
