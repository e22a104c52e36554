"""What uses the disks of this machine, looked at: ``usage`` says what it means."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.host.disk.blockdev import SYSFS
from machineos.host.disk.usage import Block, Mounted, Usage, parse_swaps, why_not
from machineos.host.kernel.mount import mounts

if TYPE_CHECKING:
    from collections.abc import Iterable

PROC = Path("/proc")


def look(disks: Iterable[Path], sysfs: Path = SYSFS, proc: Path = PROC) -> Usage:
    """Return what uses block devices, of ``disks`` (their nodes) also whether anything does.

    Raises: OSError, ToolError (``/proc`` cannot be read).
    """
    swaps = proc / "swaps"  # a kernel without swap space has no such file
    return Usage(
        blocks=tuple(_block(entry) for entry in sorted(sysfs.iterdir())),
        mounts=tuple(
            Mounted(one.device, one.source, one.target) for one in mounts(proc / "self/mountinfo")
        ),
        swaps=parse_swaps(swaps.read_text("utf-8", "surrogateescape")) if swaps.exists() else (),
        claimed={node.name: claimed(node) for node in disks},
    )


def claimed(node: Path) -> str:
    """Return why nobody can have the device for himself, empty when one can. It is not changed:
    what was opened for reading alone is not looked at anew when it is closed."""
    try:
        descriptor = os.open(node, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        return why_not(error)
    os.close(descriptor)
    return ""


def _block(entry: Path) -> Block:
    folder = entry.resolve()
    disk = folder.parent.name if (folder / "partition").exists() else folder.name
    held = folder / "holders"
    holders = sorted(held.iterdir()) if held.is_dir() else []
    names = tuple(_called(holder) for holder in holders)
    return Block(entry.name, _text(entry / "dev"), disk, names)


def _called(holder: Path) -> str:
    name = _text(holder / "dm/name")
    return f"{holder.name} ({name})" if name else holder.name


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:  # it went away, or is no device mapper's
        return ""
