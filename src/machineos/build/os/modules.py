"""The bootkit's second layer: the modules and the firmware of one kernel, signed as one volume.

It is made before the kernel image, which names it by its root hash (docs/adr/0025). What goes in
depends on the Debian tree and not on a keyset, so all keysets share one.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MODULES, FIRMWARE = "usr/lib/modules", "usr/lib/firmware"


def modules_tree(root: Path, kernel: str, target: Path) -> None:
    """Lay out the content of the layer: the modules of ``kernel`` in the Debian tree ``root``."""
    shutil.rmtree(target, ignore_errors=True)
    (target / FIRMWARE).mkdir(parents=True)
    shutil.copytree(root / MODULES / kernel, target / MODULES / kernel, symlinks=True)
