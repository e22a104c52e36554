"""The folders that a read-only root needs, because a container has things mounted there.

An image of one static binary has none of them, and nothing can be created once it is packed. What
is there already, whatever it is, stays: the service manager refuses a link in such a place.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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
