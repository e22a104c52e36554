"""Files that are either old or new, never half: atomic writes, bounded reads, locks.

Invariant: a final name appears only after its content is on the disk (write, fsync, rename, fsync
of the folder), so a crash at any line leaves the old file or the new one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from machineos.errors import ConflictError, DocumentError, Fault, MissingError, SpaceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Sync = Callable[[int], None]  # waits until what a descriptor shows is on the disk: os.fsync


def fsync_folder(folder: Path, *, sync: Sync = os.fsync) -> None:
    """Make the names in ``folder`` durable."""
    _sync(folder, os.O_DIRECTORY, sync)


def fsync_tree(folder: Path, *, sync: Sync = os.fsync) -> None:
    """Make everything in ``folder`` durable: files, then the names in each folder, it included."""
    for where, _, names in os.walk(folder, topdown=False):
        for name in sorted(names):
            _sync(Path(where) / name, os.O_NOFOLLOW, sync)
        fsync_folder(Path(where), sync=sync)


def _sync(path: Path, flags: int, sync: Sync) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def needing_space(path: Path) -> Iterator[None]:
    """Say of what happens in the block that the disk of ``path`` is full. Raises: SpaceError."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise SpaceError(f"{path}: no space left on the device") from error
        raise


@contextmanager
def atomic(
    path: Path, *, mode: int = 0o644, durable: bool = True, sync: Sync = os.fsync
) -> Iterator[BinaryIO]:
    """Yield a file that becomes ``path`` when the block ends well and vanishes when it does not.

    ``mode`` is set before the first byte is written. ``durable=False`` skips the two fsyncs, for
    caches that can be made again. Raises: SpaceError when the disk is full.
    """
    temporary = _hidden_name(path)
    with needing_space(path):
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with needing_space(path), os.fdopen(descriptor, "w+b") as file:
            os.fchmod(file.fileno(), mode)
            yield file
            file.flush()
            if durable:
                sync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        fsync_folder(path.parent, sync=sync)


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace the content of ``path`` by ``data``, whole or not at all."""
    with atomic(path, mode=mode) as file:
        file.write(data)


@contextmanager
def appearing(final: Path, *, what: str) -> Iterator[Path]:
    """Yield a hidden folder (0700) that becomes ``final`` when the block ends well, with all in it
    on the disk, and vanishes when it does not. ``what`` names it in messages.

    Raises: ConflictError when ``final`` exists, or comes to be with content meanwhile.
    """
    if os.path.lexists(final):
        raise ConflictError(f"{what} exists already: {final}")
    final.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    hidden = _hidden_name(final)
    hidden.mkdir(mode=0o700)
    try:
        yield hidden
        for folder, _, _ in os.walk(hidden):
            fsync_folder(Path(folder))
        try:
            hidden.rename(final)
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
                raise ConflictError(f"{what} exists already: {final}") from error
            raise
    except BaseException:
        import shutil  # not at module level: it pulls in every compressor, and the initrd runs this

        shutil.rmtree(hidden, ignore_errors=True)
        raise
    fsync_folder(final.parent)


def _hidden_name(path: Path) -> Path:
    return path.with_name(f".{path.name[:64]}.{os.urandom(8).hex()}")


def open_regular(path: Path, access: int = os.O_RDONLY) -> int:
    """Return a descriptor of the regular file ``path``, for reading unless ``access`` says more;
    the caller closes it.

    A symbolic link in the last component, a FIFO or a device is refused, and opening never blocks.
    Raises: MissingError, DocumentError.
    """
    try:
        descriptor = os.open(path, access | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise MissingError(f"{path} does not exist") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise DocumentError(str(path), [Fault("", 0, "is a symbolic link")]) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DocumentError(str(path), [Fault("", 0, "is not a regular file")])
    return descriptor


def read_bounded(path: Path, limit: int) -> bytes:
    """Return the content of the regular file ``path``, at most ``limit`` bytes.

    Raises: MissingError, DocumentError (also for what ``open_regular`` refuses).
    """
    descriptor = open_regular(path)
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise DocumentError(str(path), [Fault("", 0, f"is larger than {limit} bytes")])
    return data


def read_named(path: Path, limit: int) -> bytes:
    """Return the content of a file that the user names, at most ``limit`` bytes.

    Links are followed: each file of a mounted Kubernetes Secret, of Nix and of Bazel is one. What
    is at their end has to be a file, or a pipe, as ``<(command)`` is.
    Raises: MissingError, DocumentError (something else, or larger), OSError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise MissingError(f"{path} does not exist") from error
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
        os.close(descriptor)
        raise DocumentError(str(path), [Fault("", 0, "is not a regular file")])
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise DocumentError(str(path), [Fault("", 0, f"is larger than {limit} bytes")])
    return data


def erase(path: Path) -> None:
    """Overwrite the regular file ``path`` with zeros where it lies, read them back from the disk,
    and remove it. Flash memory and file systems that never write in place keep the old blocks.

    Raises: MissingError, DocumentError (as ``open_regular``), OSError (read-only, or a disk that
    does not keep what is written to it).
    """
    descriptor = open_regular(path, os.O_RDWR)
    try:
        zeros = bytes(os.fstat(descriptor).st_size)
        written = 0
        while written < len(zeros):
            written += os.pwrite(descriptor, zeros[written:], written)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        if os.pread(descriptor, len(zeros), 0) != zeros:
            raise OSError(errno.EIO, "the disk does not keep what is written", str(path))
    finally:
        os.close(descriptor)
    path.unlink()
    fsync_folder(path.parent)


def read_part(path: Path, offset: int, size: int) -> bytes:
    """Return ``size`` bytes of the regular file ``path`` from ``offset`` on, fewer at its end.

    Raises: MissingError, DocumentError (also for what ``open_regular`` refuses).
    """
    descriptor = open_regular(path)
    with os.fdopen(descriptor, "rb") as file:
        file.seek(offset)
        return file.read(size)


def list_bounded(path: Path, limit: int) -> tuple[str, ...]:
    """Return the first ``limit`` names in the folder ``path`` as it lists them, none when there is
    no such folder. A link to one is none: OSError, as for whatever else is there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return ()
    try:
        with os.scandir(descriptor) as entries:
            return tuple(entry.name for entry in islice(entries, limit))
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path, *, what: str, wait: bool = False) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` (created when absent) for the length of the block.

    Raises: ConflictError when another process holds it and ``wait`` is false.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise ConflictError(
                f"{what} is in use by another process", hint="wait until it has ended"
            ) from error
        yield
