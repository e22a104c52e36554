"""Media that firmware boots: the provisioning and the install image of a keyset.

Both hold shim where firmware looks for it (``EFI/BOOT/BOOTX64.EFI``) and the UKI of their mode
where shim looks for it (``grubx64.efi`` beside it). The install image has OCI layouts besides, one
folder per repository under ``oci/``, and ``machineos.json`` that says what they hold.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.core.files import write_atomic
from machineos.document.between.medium import INDEX_FILE, LABEL, LAYOUTS, VERSION, MediumIndex
from machineos.host.pack import tools

if TYPE_CHECKING:
    from collections.abc import Callable

    from machineos.oci.layout.folder import LayoutRegistry

BOOT_IMAGE = "efi.img"  # the FAT file system that firmware boots from


def build_medium(
    shim: Path,
    kernel: Path,
    output: Path,
    *,
    epoch: int,
    live: str = "",
    install: str = "",
    fill: Callable[[LayoutRegistry], None] | None = None,
) -> None:
    """Write a bootable image that appears whole or not at all.

    ``fill`` copies the manifests called ``live`` and ``install`` into the medium's layouts.
    Raises: ToolError, SpaceError, and what ``fill`` raises.
    """
    from machineos.oci.layout.folder import LayoutRegistry as Layouts

    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as name:
        work = Path(name)
        tree, result = work / "tree", work / "result.iso"
        esp = tree / BOOT_IMAGE
        (tree / LAYOUTS).mkdir(parents=True)
        files = {"EFI/BOOT/BOOTX64.EFI": shim, "EFI/BOOT/grubx64.efi": kernel}
        tools.make_fat(esp, label="EFIBOOT", files=files, epoch=epoch)
        if fill is not None:
            fill(Layouts(tree / LAYOUTS, writable=True))
            index = MediumIndex(version=VERSION, live=live, install=install)
            write_atomic(tree / INDEX_FILE, index.to_bytes())
        tools.make_medium(tree, BOOT_IMAGE, result, label=LABEL, epoch=epoch)
        shutil.move(result, output)
