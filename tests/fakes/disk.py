"""A disk for tests: a file behind a loop device, with what a power cut leaves of it.

``cut`` copies the file as it is: what was written to the device but is still in the memory of a
file system's kernel side is not in the copy, which is what a power cut makes of a disk whose cache
is empty. ``damage`` changes bytes of the file, below every file system. Needs root.

The process gets mounts of its own, for good: whoever makes a mount namespace meanwhile (other tests
do) would hold what we mount and unmount, and mounting it again would find it busy.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from machineos.host.kernel import loopdev
from machineos.host.kernel.mount import Flag, mount, mounts, unmount

_NEW_MOUNTS = 0x20000  # CLONE_NEWNS of unshare(2)


@cache
def own_mounts() -> None:
    """Leave the mount namespace that we share with others."""
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_MOUNTS) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    mount("none", Path("/"), "", Flag.PRIVATE | Flag.REC)


class LoopDisk:
    """``file`` as a block device; ``folder`` is where it is mounted, when it is."""

    def __init__(self, file: Path, *, size: int = 0) -> None:
        own_mounts()
        self.file = file
        self.folder = file.with_name(file.name + ".mounted")
        if size:
            with file.open("wb") as image:
                image.truncate(size)
        self._open = ExitStack()
        with file.open("r+b") as image:
            self._device = self._open.enter_context(
                loopdev.attach(image.fileno(), read_only=False, label=file.name)
            )

    @property
    def device(self) -> Path:
        """The device node."""
        return self._device.path

    def mount(self, kind: str, *, options: str = "", read_only: bool = False) -> Path:
        """Mount it and return where."""
        self.folder.mkdir(exist_ok=True)
        mount(self.device, self.folder, kind, Flag.RDONLY if read_only else Flag.NONE, options)
        return self.folder

    def unmount(self) -> None:
        """Unmount it."""
        unmount(self.folder)

    def cut(self) -> LoopDisk:
        """Return the disk that a power cut leaves now; this one goes on."""
        number = len(list(self.file.parent.glob(f"{self.file.name}.cut*")))
        other = self.file.with_name(f"{self.file.name}.cut{number}")
        copy_sparse(self.file, other)
        return LoopDisk(other)

    def damage(self, content: bytes) -> int:
        """Flip one bit in every copy of ``content`` (at least 16 bytes) and return how many."""
        found = 0
        with self.file.open("r+b") as file, mmap.mmap(file.fileno(), 0) as image:
            at = image.find(content)
            while at >= 0:
                image[at] ^= 1
                found += 1
                at = image.find(content, at + 1)
        return found

    def close(self) -> None:
        """Unmount whatever of it is mounted, and let it go."""
        for entry in reversed(mounts()):
            if entry.target == self.folder:
                unmount(entry.target, lazy=True)
        self._open.close()


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a file without its holes."""
    with source.open("rb") as origin, target.open("wb") as copy:
        size = os.fstat(origin.fileno()).st_size
        copy.truncate(size)
        at = 0
        while True:
            try:
                start = os.lseek(origin.fileno(), at, os.SEEK_DATA)
            except OSError:  # only a hole is left
                return
            at = os.lseek(origin.fileno(), start, os.SEEK_HOLE)
            while start < at:
                data = os.pread(origin.fileno(), min(1 << 20, at - start), start)
                os.pwrite(copy.fileno(), data, start)
                start += len(data)
