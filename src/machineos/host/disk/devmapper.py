"""Device mapper by its own tool, for what is asked of it while udev is there."""

from __future__ import annotations

from machineos.core.command import Command

_TIMEOUT = 60.0


def rename_command(name: str, new: str) -> Command:
    """Return what gives an open device another name, whoever uses it, and waits until udev has made
    the node of that name."""
    return Command(("dmsetup", "rename", name, new), _TIMEOUT)
