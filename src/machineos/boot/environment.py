"""The first things: pseudo file systems, the command line, the clock, waiting for devices."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from machineos.errors import BootError
from machineos.host.kernel.mount import Flag, mount

if TYPE_CHECKING:
    from collections.abc import Callable

    from machineos.core.clock import Clock
    from machineos.document.between.bootsettings import Settings

T = TypeVar("T")
_SAFE = Flag.NOSUID | Flag.NODEV | Flag.NOEXEC
# source, target, type, flags, data: what systemd expects to find when it takes over
_PSEUDO = (
    ("proc", "/proc", "proc", _SAFE, ""),
    ("sysfs", "/sys", "sysfs", _SAFE, ""),
    ("devtmpfs", "/dev", "devtmpfs", Flag.NOSUID, "mode=0755"),
    ("tmpfs", "/run", "tmpfs", Flag.NOSUID | Flag.NODEV, "mode=0755"),
    ("securityfs", "/sys/kernel/security", "securityfs", _SAFE, ""),
)


def mount_pseudo() -> None:
    """Mount the kernel's own file systems."""
    for source, target, kind, flags, data in _PSEUDO:
        folder = Path(target)
        folder.mkdir(exist_ok=True)
        mount(source, folder, fstype=kind, flags=flags, data=data)


def check_command_line(settings: Settings, actual: str) -> None:
    """Refuse a kernel command line that is not the one inside the signed UKI.

    systemd-stub ignores one from outside under Secure Boot and measures add-ons into PCR 12; this
    is the second lock on the same door (peers: UKI command line attacks).
    Raises: BootError.
    """
    if actual.split() != settings.command_line.split():
        raise BootError("the kernel command line is not the one that was signed")


def wait_for(what: str, probe: Callable[[], T | None], clock: Clock, *, seconds: float) -> T:
    """Return what ``probe`` finds, asking again until ``seconds`` are over. Raises: BootError."""
    deadline = clock.monotonic() + seconds
    while True:
        found = probe()
        if found is not None:
            return found
        if clock.monotonic() > deadline:
            raise BootError(f"{what} did not appear within {seconds:.0f} s")
        clock.sleep(0.05)


def floor_clock(settings: Settings, clock: Clock) -> None:
    """Move a clock that is behind the build of this image up to it (a dead RTC battery)."""
    if clock.now().timestamp() < settings.epoch:
        import time

        time.clock_settime(time.CLOCK_REALTIME, settings.epoch)


def read_text(path: str) -> str:
    """Return a small pseudo file without the final newline, empty when it is not there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # not every firmware has every DMI field
        return ""
    with os.fdopen(descriptor, "rb") as file:
        return file.read(65536).decode("utf-8", "replace").strip()
