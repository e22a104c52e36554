"""The folders that a read-only root needs, because a container has things mounted there.

An image of one static binary has none of them, and nothing can be created once it is packed. What
is there already, whatever it is, stays: the service manager refuses a link in such a place.
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

ALWAYS = ("/dev", "/etc", "/proc", "/run", "/sys", "/tmp", "/var/tmp")  # noqa: S108
_MODES = {"/tmp": 0o1777, "/var/tmp": 0o1777}  # noqa: S108


def mount_points(volumes: Iterable[str]) -> Iterator[tuple[tuple[str, ...], int | None]]:
    """Yield each folder that is wanted, by the parts of its name, and the mode that it must have.

    ``volumes`` are those that the image declares; a name ends where it would leave the tree.
    """
    for path in (*ALWAYS, *volumes):
        parts = path.strip("/").split("/")
        good = itertools.takewhile(lambda part: part not in {"", ".", ".."}, parts)
        yield tuple(good), _MODES.get(path)


def add_mount_points(tree: Path, volumes: Iterable[str], *, epoch: int) -> None:
    """Make the missing folders in ``tree``; ``volumes`` are those that the image declares.

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
                os.utime(folder, (epoch, epoch))
                # The time of the folder above would say when this ran, and so change the image.
                os.utime(parent, ns=(before.st_atime_ns, before.st_mtime_ns))
        else:
            if mode is not None and folder.is_dir() and not folder.is_symlink():
                folder.chmod(mode)
