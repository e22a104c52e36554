"""Device mapper by its own tool, for what is asked of it while udev is there."""

from __future__ import annotations

from machineos.core.command import Command

_TIMEOUT = 60.0


def rename_command(name: str, new: str) -> Command:
    """Return what gives an open device another name, at once and whoever uses it; nodes are made
    without udev, which is busy at boot."""
    argv = ("dmsetup", "--noudevrules", "--noudevsync", "rename", name, new)
    return Command(argv, _TIMEOUT)
