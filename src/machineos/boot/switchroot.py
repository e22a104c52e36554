"""The last call of the initrd: the new root in place of the old one, whose memory is given back."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from machineos.host.kernel.mount import Flag, mount


def switch_root(root: Path, init: str, arguments: tuple[str, ...]) -> NoReturn:
    """Make ``root``, which is a mount, the root, free the memory of the initrd, become ``init``."""
    old = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.chdir(root)
    mount(".", Path("/"), "", Flag.MOVE)
    os.chroot(".")
    os.chdir("/")
    _empty(old, os.fstat(old).st_dev)
    os.close(old)
    os.execve(init, [init, *arguments], {"container": "", "PATH": "/usr/sbin:/usr/bin"})  # noqa: S606


def _empty(folder: int, device: int) -> None:
    """Remove what is below ``folder`` on ``device``, following no link and no mount."""
    for name in os.listdir(folder):
        info = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if info.st_dev != device:
            continue
        if stat.S_ISDIR(info.st_mode):
            child = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            _empty(child, device)
            os.close(child)
            remove = os.rmdir
        else:
            remove = os.unlink
        with suppress(OSError):  # a mount point or a busy file keeps a few pages of memory, no more
            remove(name, dir_fd=folder)
