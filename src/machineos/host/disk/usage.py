"""Which disks are in use, and by what: mounts, swap space, what is made of a disk or of a part of
it (device mapper, LVM, RAID), and whatever program has one open for itself alone.

Pure; ``inuse`` looks. What is in use is said by ``/proc`` and ``/sys``; that nothing else is, only
the kernel knows: a device which somebody has claimed, or a part of which, cannot be opened
exclusively (open(2), O_EXCL). What cannot be told is in use.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_OCTAL = re.compile(r"\\([0-7]{3})")
_MOST_SHOWN = 4


class Block(msgspec.Struct, frozen=True, order=True):
    """A block device: ``number`` is MAJOR:MINOR, ``disk`` what it is a partition of, itself when it
    is none, ``holders`` the names of the devices that are made of it."""

    name: str
    number: str
    disk: str
    holders: tuple[str, ...] = ()


class Mounted(msgspec.Struct, frozen=True):
    """A file system that is mounted: the number and the name of its device, as mountinfo has them,
    and where it is."""

    number: str
    source: str
    target: Path


class Usage(msgspec.Struct, frozen=True):
    """What uses block devices: ``swaps`` are paths, ``claimed`` says of each disk why it cannot be
    opened exclusively, nothing where it can."""

    blocks: tuple[Block, ...]
    mounts: tuple[Mounted, ...]
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
            if mount.number == block.number or mount.source == str(node):
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
