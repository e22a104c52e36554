"""Looking into the root of an image without ever leaving it.

Every component of a path is opened relative to the one before and never through a symbolic link, so
nothing an image contains can make us read, or mount over, a file of the host (CVE-2025-31133,
CVE-2019-5736 and their kin).
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from machineos.document.model.image import Sight
from machineos.document.model.limits import MAX_INSIDE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def see_folder(root: Path, path: str) -> Sight:
    """Return whether the absolute ``path`` is a real folder of the image."""
    names = _components(path)
    if names is None:
        return _not_plain(path)
    current = "/"
    with _opened(root) as descriptor:
        for name in names:
            current = f"{current.rstrip('/')}/{name}"
            try:
                step = os.open(name, _STEP, dir_fd=descriptor)
            except FileNotFoundError:
                return Sight(f"{current} does not exist", absent=True)
            except OSError as error:
                return Sight(f"{current}: {error.strerror}")
            os.dup2(step, descriptor, inheritable=False)
            os.close(step)
            mode = os.fstat(descriptor).st_mode
            if stat.S_ISLNK(mode):
                return Sight(f"{current} is a symbolic link")
            if not stat.S_ISDIR(mode):
                return Sight(f"{current} is not a folder")
    return Sight()


def see_file(root: Path, path: str, *, limit: int = MAX_INSIDE) -> Sight:
    """Return the content of a regular file of the image, if it is one of at most ``limit`` bytes
    and no folder above it is a link or something else."""
    names = _components(path)
    if not names:
        return _not_plain(path)
    *folders, name = names
    above = see_folder(root, "/" + "/".join(folders))
    if above.absent:
        return above
    if above.problem:
        return Sight(f"{path} is not read: {above.problem}")
    try:
        with _opened(root, *folders) as descriptor:
            file = os.open(name, _FILE, dir_fd=descriptor)
    except FileNotFoundError:
        return Sight(f"{path} does not exist", absent=True)
    except OSError as error:
        why = "is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        return Sight(f"{path} {why}")
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        return Sight(f"{path} is not a regular file")
    with os.fdopen(file, "rb") as reader:
        data = reader.read(limit + 1)
    if len(data) > limit:
        return Sight(f"{path} is larger than {limit} bytes")
    return Sight(data=data)


def _not_plain(path: str) -> Sight:
    return Sight(f"{path[:120]!r} is no path inside an image")


def _components(path: str) -> list[str] | None:
    names = [name for name in path.split("/") if name]
    if not path.startswith("/") or {".", ".."} & set(names) or "\0" in path:
        return None
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
