"""Media that a person put in: the install medium and the small disks that ``trust launch`` attaches.

They are found by what is on them, not by where they are. Nothing on them is trusted: what counts is
verified against the anchors in the initrd.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from machineos.core.files import read_bounded
from machineos.core.jsondoc import decode_json
from machineos.errors import ToolError
from machineos.host.mount import Flag, mount, unmount

if TYPE_CHECKING:
    from collections.abc import Iterable

_SAFE = Flag.RDONLY | Flag.NOSUID | Flag.NODEV | Flag.NOEXEC
_LIMIT = 65536
INDEX_FILE = "machineos.json"


class MediumIndex(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``machineos.json`` on the install medium: where its OCI layouts are and what they hold.

    ``live`` names the manifest of the installer's own root; ``install`` the one to install, empty
    when it comes from a registry.
    """

    version: int
    live: str
    install: str = ""


@dataclass(frozen=True, slots=True)
class Medium:
    """A mounted install medium."""

    device: Path
    folder: Path
    index: MediumIndex


def volume_label(device: Path) -> str:
    """Return the label of the FAT or ISO 9660 file system on ``device``, empty for anything else.

    Only a few fixed bytes are looked at; the kernel's parsers see nothing yet.
    """
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # an empty drive cannot be opened
        return ""
    try:
        sector = os.pread(descriptor, 512, 0)
        volume = os.pread(descriptor, 72, 0x8000)
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    if volume[1:6] == b"CD001":
        return volume[40:72].decode("ascii", "replace").strip()
    if sector[510:512] == b"\x55\xaa":
        for kind, label in ((0x52, 0x47), (0x36, 0x2B)):
            if sector[kind : kind + 3] == b"FAT":
                return sector[label : label + 11].decode("ascii", "replace").strip()
    return ""


def find_labelled(devices: Iterable[Path], label: str) -> Path | None:
    """Return the first device with this label."""
    return next((device for device in devices if volume_label(device) == label), None)


def mount_medium(device: Path, folder: Path) -> Medium | None:
    """Mount an install medium; None when the device is not one."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        mount(device, folder, "iso9660", _SAFE)
    except ToolError:
        return None
    try:
        data = read_bounded(folder / INDEX_FILE, _LIMIT)
    except (OSError, ToolError):
        unmount(folder)
        return None
    return Medium(device, folder, decode_json(data, MediumIndex, name=INDEX_FILE))


def read_files(device: Path, names: Iterable[str], folder: Path) -> dict[str, bytes]:
    """Return the named files of a small FAT disk. Raises: MissingError, ToolError."""
    folder.mkdir(parents=True, exist_ok=True)
    mount(device, folder, "vfat", _SAFE)
    try:
        return {name: read_bounded(folder / name, _LIMIT) for name in names}
    finally:
        unmount(folder)
