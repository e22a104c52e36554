"""The folders that a read-only root needs, because a container has things mounted there.

An image of one static binary has none of them, and nothing can be created once it is packed. What
is there already, whatever it is, stays: the service manager refuses a link in such a place.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ALWAYS = ("/dev", "/etc", "/proc", "/run", "/sys", "/tmp", "/var/tmp")  # noqa: S108
_MODES = {"/tmp": 0o1777, "/var/tmp": 0o1777}  # noqa: S108


def add_mount_points(tree: Path, volumes: Iterable[str], *, epoch: int) -> None:
    """Make the missing folders in ``tree``; ``volumes`` are those that the image declares.

    Links are not followed: where one is in the way, nothing is made.
    """
    for path in (*ALWAYS, *volumes):
        folder = tree
        for part in path.strip("/").split("/"):
            if part in {"", ".", ".."} or folder.is_symlink():
                break
            parent, folder = folder, folder / part
            if not os.path.lexists(folder):
                before = parent.stat()
                folder.mkdir()
                folder.chmod(0o755)
                os.utime(folder, (epoch, epoch))
                # The time of the folder above would say when this ran, and so change the image.
                os.utime(parent, ns=(before.st_atime_ns, before.st_mtime_ns))
        else:
            if path in _MODES and folder.is_dir() and not folder.is_symlink():
                folder.chmod(_MODES[path])
