"""Microcode as the kernel takes it: the first archive of all initrds, not compressed.

Follows the kernel's documentation (arch/x86/microcode): one file per vendor, which holds the files
of all its processors one after the other.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from machineos.build.os import initrd
from machineos.errors import MissingError

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.document.model.hardware import Microcode

# Folder below usr/lib/firmware, name in the archive.
VENDORS = {"amd": ("amd-ucode", "AuthenticAMD.bin"), "intel": ("intel-ucode", "GenuineIntel.bin")}


def microcode_archive(root: Path, vendor: Microcode, *, work: Path, epoch: int) -> bytes:
    """Return the archive with all that the Debian tree ``root`` has for processors of ``vendor``,
    nothing for ``none``. Raises: MissingError, ToolError."""
    if vendor == "none":
        return b""
    folder, name = VENDORS[vendor]
    files = sorted((root / "usr/lib/firmware" / folder).glob("*"))
    blobs = [path.read_bytes() for path in files if is_microcode(path.name)]
    if not blobs:
        raise MissingError(f"{root} has no microcode for processors of {vendor}")
    stage = work / "microcode"
    shutil.rmtree(stage, ignore_errors=True)
    place = stage / "kernel/x86/microcode" / name
    place.parent.mkdir(parents=True)
    place.write_bytes(b"".join(blobs))
    archive = work / "microcode.cpio"
    initrd.pack(stage, archive, epoch=epoch, compress=False)
    return archive.read_bytes()


def is_microcode(name: str) -> bool:
    """Return whether a file there is for processors: AMD's has a suffix, Intel's is called by
    family, model and stepping; beside them are licences and signatures."""
    return name.endswith(".bin") or name.count("-") == 2
