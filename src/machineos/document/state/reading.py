"""Reading the documents of a configuration store out of a folder: the one effect of this room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.core.files import read_bounded
from machineos.core.paths import safe_join

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def folder_reader(folder: Path) -> Callable[[str, int], bytes]:
    """Return the ``read`` of ``system.load_verified`` for a folder: plain files only, bounded."""

    def read(name: str, limit: int) -> bytes:
        return read_bounded(safe_join(folder, name), limit)

    return read
