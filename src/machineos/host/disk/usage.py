"""Which disks are in use, and by what: mounts, swap space, what is made of a disk or of a part of
it (device mapper, LVM, RAID), and whatever program has one open for itself alone.

What is in use is said by ``/proc`` and ``/sys``; that nothing else is, only the kernel knows: a
device which somebody has claimed, or a part of which, cannot be opened exclusively (open(2),
O_EXCL). What cannot be told is in use.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from machineos.host.disk.blockdev import SYSFS
from machineos.host.kernel.mount import Mount, parse_mountinfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

PROC = Path("/proc")
_OCTAL = re.compile(r"\\([0-7]{3})")
_MOST_SHOWN = 4


class Block(msgspec.Struct, frozen=True, order=True):
    """A block device: ``number`` is MAJOR:MINOR, ``disk`` what it is a partition of, itself when it
    is none, ``holders`` the names of the devices that are made of it."""

    name: str
    number: str
    disk: str
    holders: tuple[str, ...] = ()


class Usage(msgspec.Struct, frozen=True):
    """What uses block devices: ``swaps`` are paths, ``claimed`` says of each disk why it cannot be
    opened exclusively, nothing where it can."""

    blocks: tuple[Block, ...]
    mounts: tuple[Mount, ...]
    swaps: tuple[Path, ...]
    claimed: Mapping[str, str]

    def of(self, disk: str) -> tuple[str, ...]:
        """Return why ``disk`` is in use, each reason in words; nothing when it is not."""
        parts = sorted(block for block in self.blocks if block.disk == disk)
        found = [reason for part in parts for reason in self._reasons(part)]
        claimed = self.claimed.get(disk, "was not looked at")
        if not found and claimed:
            found.append(f"{disk} {claimed}")
        left = len(found) - _MOST_SHOWN
        return (*found[:_MOST_SHOWN], *((f"and {left} more",) if left > 0 else ()))

    def _reasons(self, block: Block) -> Iterator[str]:
        node = Path("/dev") / block.name
        for mount in self.mounts:
            # A file system on several devices (btrfs) has a number of its own, and the first one's
            # name.
            if mount.device == block.number or mount.source == str(node):
                yield f"{block.name} is mounted at {mount.target}"
        if node in self.swaps:
            yield f"{block.name} is swap space"
        for holder in block.holders:
            yield f"{block.name} is part of {holder}"


def parse_swaps(text: str) -> tuple[Path, ...]:
    """Return the files and devices in ``/proc/swaps`` (proc(5)), whose first line is a head."""
    names = (line.split()[0] for line in text.splitlines()[1:] if line.split())
    return tuple(Path(_OCTAL.sub(lambda match: chr(int(match[1], 8)), name)) for name in names)


def why_not(error: OSError) -> str:
    """Return in words why a disk could not be opened exclusively."""
    if error.errno == errno.EBUSY:
        return "is used by a program, as a whole or a part of it"
    return f"cannot be opened: {error.strerror}"


def look(disks: Iterable[Path], sysfs: Path = SYSFS, proc: Path = PROC) -> Usage:
    """Return what uses block devices, of ``disks`` (their nodes) also whether anything does.

    Raises: OSError, ToolError (``/proc`` cannot be read).
    """
    mountinfo = (proc / "self/mountinfo").read_text("utf-8", "surrogateescape")
    swaps = proc / "swaps"  # a kernel without swap space has no such file
    return Usage(
        blocks=tuple(_block(entry) for entry in sorted(sysfs.iterdir())),
        mounts=parse_mountinfo(mountinfo),
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
