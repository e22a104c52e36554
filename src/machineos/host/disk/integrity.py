"""dm-integrity with a key, by itself: the commands of ``integritysetup``.

Every block is authenticated by a tag of its own (HMAC-SHA-256); a changed one cannot be read. The
tags of what was never written are not made: who uses the device reads only what it wrote. The key
goes in by standard input; root sees it in the table of the device afterwards.
"""

from __future__ import annotations

import struct
from pathlib import Path

from machineos.core.command import Command
from machineos.errors import VerificationError

KEY_SIZE = 32
# Read by LVM and others when they look for what is there, so written before anybody looks.
EDGE = 16 << 20
# The initrd has no /dev/stdin: udev makes that link.
_INTEGRITY = (
    "--integrity=hmac-sha256", "--integrity-key-file=/proc/self/fd/0",
    f"--integrity-key-size={KEY_SIZE}",
)  # fmt: skip
_TIMEOUT = 900.0
# The kernel keeps all of it in memory as long as the device is open.
_JOURNAL = 16 << 20
_TAG, _BLOCK = 32, 4096
# struct superblock of drivers/md/dm-integrity.c: magic, version, log2 of the interleave, tag size,
# sections of the journal, sectors of data, flags, log2 of the block and of the bitmap, recalculated
_SUPERBLOCK = struct.Struct("<8s BB H I Q I BB 2x Q")
SUPERBLOCK_SIZE = 512
_MAGIC, _VERSION = b"integrt\0", 5
_FLAGS = 0x08 | 0x10  # fixed padding, fixed HMAC
_MOST_SECTIONS = 256


def name_of(group: str) -> str:
    """Return what the device below a volume group is opened as."""
    return f"{group}-integrity"


def mapped(name: str) -> Path:
    """Return the device node once it is open."""
    return Path("/dev/mapper") / name


def check_superblock(block: bytes, *, what: str) -> None:
    """Refuse a device whose superblock is not as the installer makes it; ``block`` is its start.

    Nothing authenticates the superblock, and some of its flags tell the kernel to make all tags
    anew, of whatever is there. Raises: VerificationError.
    """
    if len(block) < _SUPERBLOCK.size:
        raise VerificationError(f"{what}: it has no superblock of dm-integrity")
    magic, version, _, tag, sections, _, flags, log2_block, _, recalculated = (
        _SUPERBLOCK.unpack_from(block)
    )
    found = (magic, version, tag, flags, 512 << min(log2_block, 32), recalculated)
    if found != (_MAGIC, _VERSION, _TAG, _FLAGS, _BLOCK, 0) or sections > _MOST_SECTIONS:
        raise VerificationError(f"{what}: its superblock of dm-integrity is none of ours")


def format_command(device: Path) -> Command:
    """Return the command that formats; everything on the device is lost."""
    argv = (
        "integritysetup", "format", "--batch-mode", "--no-wipe", *_INTEGRITY,
        f"--tag-size={_TAG}", f"--sector-size={_BLOCK}", f"--journal-size={_JOURNAL}", str(device),
    )  # fmt: skip
    return Command(argv, _TIMEOUT)


def open_command(device: Path, name: str) -> Command:
    """Return the command that opens."""
    return Command(("integritysetup", "open", *_INTEGRITY, str(device), name), _TIMEOUT)


def close_command(name: str) -> Command:
    """Return the command that closes."""
    return Command(("integritysetup", "close", name), _TIMEOUT)
