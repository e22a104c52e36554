"""Media that a person put in: the install medium and the small disks of ``trust launch``.

They are found by what is on them, not by where they are. Nothing on them is trusted: what counts is
verified against the anchors in the initrd.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.core.files import read_bounded
from machineos.document.between.medium import INDEX_FILE, MediumIndex, parse_index
from machineos.errors import MachineOSError
from machineos.host.disk.blockdev import volume_label
from machineos.host.kernel.mount import Flag, mount, unmount

if TYPE_CHECKING:
    from collections.abc import Iterable

_SAFE = Flag.RDONLY | Flag.NOSUID | Flag.NODEV | Flag.NOEXEC
_LIMIT = 65536


@dataclass(frozen=True, slots=True)
class Medium:
    """A mounted install medium."""

    device: Path
    folder: Path
    index: MediumIndex


def find_labelled(devices: Iterable[Path], label: str) -> Path | None:
    """Return the first device with this label."""
    return next((device for device in devices if volume_label(device) == label), None)


def mount_medium(device: Path, folder: Path) -> Medium | None:
    """Mount an install medium; None when the device is not one."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        mount(device, folder, "iso9660", _SAFE)
    except MachineOSError:
        return None
    try:
        index = parse_index(read_bounded(folder / INDEX_FILE, _LIMIT))
    except (OSError, MachineOSError):
        unmount(folder)
        return None
    return Medium(device, folder, index)


def read_files(device: Path, names: Iterable[str], folder: Path) -> dict[str, bytes]:
    """Return the named files of a small FAT disk. Raises: MissingError, ToolError."""
    folder.mkdir(parents=True, exist_ok=True)
    mount(device, folder, "vfat", _SAFE)
    try:
        return {name: read_bounded(folder / name, _LIMIT) for name in names}
    finally:
        unmount(folder)
