"""Reading what is on the disk, and not what the kernel remembers of it; and writing past that.

A file that was just written is read from the page cache, also after fsync(2), and after
posix_fadvise(2) as well unless nobody else holds its pages. Invariant: the bytes that come out of
here were transferred by the device for this call (O_DIRECT, open(2)). Where a file system takes the
flag and reads from its cache all the same (ext4 with data=journal does), it has to be unmounted and
mounted before: ``state/slots`` does both.
"""

from __future__ import annotations

import errno
import mmap
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHUNK = 1 << 20  # a multiple of every block size; a mapping is aligned to a page


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Yield a descriptor of the regular file ``path`` that reads past the cache, and one that
    does not where the file system has no such thing (tmpfs: there is no disk behind it).

    A symbolic link is refused, and a FIFO is not waited for. Raises: OSError.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags | os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_chunks(descriptor: int) -> Iterator[bytes]:
    """Yield what an ``opened`` file holds, from its start. Raises: OSError (EIO: a bad sector)."""
    size = os.fstat(descriptor).st_size
    seen = 0
    with mmap.mmap(-1, CHUNK) as buffer:
        while seen < size:
            count = os.preadv(descriptor, [buffer], seen)
            if count == 0:  # it was cut off meanwhile
                return
            yield buffer[:count]
            seen += count


def write_zeros(device: Path, size: int, *, at_end: bool) -> None:
    """Write ``size`` bytes (a multiple of 4096) of zeros at the start or the end of a device.

    Nothing of what is there is read first, as a write through the cache would. Raises: OSError.
    """
    descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC | os.O_DIRECT)
    try:
        end = os.lseek(descriptor, 0, os.SEEK_END)
        start = end - size if at_end else 0
        with mmap.mmap(-1, CHUNK) as zeros:
            for place in range(start, start + size, CHUNK):
                count = min(CHUNK, start + size - place)
                os.pwritev(descriptor, [memoryview(zeros)[:count]], place)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
