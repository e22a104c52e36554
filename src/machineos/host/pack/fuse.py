"""File systems shown without root: ``squashfuse``, and ``fusermount3`` (fuse3), which ends that.

Invariant: what is shown is read-only, and nothing in it is a device or makes anybody root.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.core.command import Command

if TYPE_CHECKING:
    from pathlib import Path

PROGRAM = "squashfuse"
HELPER = "fusermount3"
_TIMEOUT = 120.0


def mount_command(image: int, target: Path) -> Command:
    """Return the command that shows the squashfs in the open file ``image`` at ``target``.

    It goes on in the background until ``target`` is unmounted.
    """
    argv = (PROGRAM, "-o", "ro,nosuid,nodev", f"/proc/self/fd/{image}", str(target))
    return Command(argv, _TIMEOUT, pass_fds=(image,))


def unmount_command(target: Path) -> Command:
    """Return the command by which an ordinary user ends it."""
    return Command((HELPER, "-u", str(target)), _TIMEOUT)
