"""dm-integrity with a key, by itself: the commands of ``integritysetup``.

Every block is authenticated by a tag of its own (HMAC-SHA-256); a changed one cannot be read. The
tags of what was never written are not made: who uses the device reads only what it wrote. The key
goes in by standard input; root sees it in the table of the device afterwards.
"""

from __future__ import annotations

from pathlib import Path

from machineos.core.command import Command

KEY_SIZE = 32
# Read by LVM and others when they look for what is there, so written before anybody looks.
EDGE = 16 << 20
# The initrd has no /dev/stdin: udev makes that link.
_INTEGRITY = (
    "--integrity=hmac-sha256", "--integrity-key-file=/proc/self/fd/0",
    f"--integrity-key-size={KEY_SIZE}",
)  # fmt: skip
_TIMEOUT = 900.0


def name_of(group: str) -> str:
    """Return what the device below a volume group is opened as."""
    return f"{group}-integrity"


def mapped(name: str) -> Path:
    """Return the device node once it is open."""
    return Path("/dev/mapper") / name


def format_command(device: Path) -> Command:
    """Return the command that formats; everything on the device is lost."""
    argv = (
        "integritysetup", "format", "--batch-mode", "--no-wipe", *_INTEGRITY, "--tag-size=32",
        "--sector-size=4096", str(device),
    )  # fmt: skip
    return Command(argv, _TIMEOUT)


def open_command(device: Path, name: str) -> Command:
    """Return the command that opens."""
    return Command(("integritysetup", "open", *_INTEGRITY, str(device), name), _TIMEOUT)


def close_command(name: str) -> Command:
    """Return the command that closes."""
    return Command(("integritysetup", "close", name), _TIMEOUT)
