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

_PLACE = "kernel/x86/microcode"
# Vendor, folder below usr/lib/firmware, name in the archive.
_AMD = ("amd", "amd-ucode", "AuthenticAMD.bin")
_INTEL = ("intel", "intel-ucode", "GenuineIntel.bin")
VENDORS: dict[Microcode, tuple[tuple[str, str, str], ...]] = {
    "none": (),
    "amd": (_AMD,),
    "intel": (_AMD, _INTEL),
}


def microcode_archive(root: Path, wanted: Microcode, *, work: Path, epoch: int) -> bytes:
    """Return the archive with all that the Debian tree ``root`` has for the processors ``wanted``,
    nothing for ``none``. Raises: MissingError, ToolError."""
    if wanted == "none":
        return b""
    stage = work / "microcode"
    shutil.rmtree(stage, ignore_errors=True)
    (stage / _PLACE).mkdir(parents=True)
    for vendor, folder, name in VENDORS[wanted]:
        files = sorted((root / "usr/lib/firmware" / folder).glob("*"))
        blobs = [path.read_bytes() for path in files if is_microcode(path.name)]
        if not blobs:
            raise MissingError(f"{root} has no microcode for processors of {vendor}")
        (stage / _PLACE / name).write_bytes(b"".join(blobs))
    archive = work / "microcode.cpio"
    initrd.pack(stage, archive, epoch=epoch, compress=False)
    return archive.read_bytes()


def is_microcode(name: str) -> bool:
    """Return whether a file there is for processors: AMD's has a suffix, Intel's is called by
    family, model and stepping; beside them are licences and signatures."""
    return name.endswith(".bin") or name.count("-") == 2
