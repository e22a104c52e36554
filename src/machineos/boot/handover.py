"""The last steps of the initrd: fresh /etc and /var, the mounts moved, systemd started.

Nothing that was on a disk before this boot can get into the new root: the upper folders are made
new on a tmpfs each time (ostree#3187 is what happens otherwise).
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from machineos.errors import BootError
from machineos.host.kernel.mount import Flag, mount, move

INIT = "/usr/lib/systemd/systemd"
_MOVED = ("dev", "proc", "sys", "run")


def fresh_overlays(root: Path, scratch: Path) -> None:
    """Put a writable, empty layer over /etc and /var of ``root``; it lives until power off."""
    for name in ("etc", "var"):
        upper, work = scratch / name / "upper", scratch / name / "work"
        upper.mkdir(parents=True, mode=0o755)
        work.mkdir(mode=0o700)
        lower = root / name
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        mount("overlay", lower, "overlay", Flag.NOSUID | Flag.NODEV, options)


def switch_root(root: Path, *, arguments: tuple[str, ...] = ()) -> NoReturn:
    """Make ``root`` the root, free the memory of the initrd, and become systemd.

    Raises: BootError when the new root has no init.
    """
    if not os.access(root / INIT.lstrip("/"), os.X_OK):
        raise BootError(f"the root file system has no {INIT}")
    for name in _MOVED:
        move(Path("/") / name, root / name)
    old = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    os.chdir(root)
    mount(".", Path("/"), "", Flag.MOVE)
    os.chroot(".")
    os.chdir("/")
    _empty(old, os.fstat(old).st_dev)
    os.close(old)
    os.execve(INIT, [INIT, *arguments], {"container": "", "PATH": "/usr/sbin:/usr/bin"})  # noqa: S606


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
