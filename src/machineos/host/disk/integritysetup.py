"""Keyed dm-integrity on a whole device: the commands of ``integritysetup``.

The key goes in by standard input only (the program opens a path, so it is given that of its own
input). A sector that somebody changed is an I/O error; one that was never written is, too, so
whoever reads there writes first.
"""

from __future__ import annotations

from pathlib import Path

from machineos.core.command import Command

KEY_SIZE = 32
MAPPER = Path("/dev/mapper")
_TIMEOUT = 300.0
_INTEGRITY = (
    "--integrity=hmac-sha256", "--integrity-key-file=/proc/self/fd/0",
    f"--integrity-key-size={KEY_SIZE}",
)  # fmt: skip


def format_command(device: Path) -> Command:
    """Return the command that formats; everything on the device is lost. Nothing is wiped."""
    size = (f"--tag-size={KEY_SIZE}", "--sector-size=4096")
    argv = ("integritysetup", "format", "--batch-mode", "--no-wipe", *_INTEGRITY, *size)
    return Command((*argv, str(device)), _TIMEOUT)


def open_command(device: Path, name: str) -> Command:
    """Return the command that opens a device under a name."""
    return Command(("integritysetup", "open", *_INTEGRITY, str(device), name), _TIMEOUT)


def close_command(name: str) -> Command:
    """Return the command that closes it."""
    return Command(("integritysetup", "close", name), _TIMEOUT)
