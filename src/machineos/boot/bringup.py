"""The real machine's first moments: pseudo file systems, console, drivers; and the end of all.

Everything here is needed before the rest of Python is there, so it imports as little as it can.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.boot.console import Console
from machineos.boot.drivers import Drivers, read_text
from machineos.core.clock import SystemClock
from machineos.document.between.bootsettings import FOLDER, SETTINGS_FILE
from machineos.errors import MachineOSError
from machineos.host.kernel.mount import Flag, mount
from machineos.host.kernel.syscalls import Power, power

if TYPE_CHECKING:
    from machineos.boot.host import Host
    from machineos.document.between.bootsettings import Settings

_SAFE = Flag.NOSUID | Flag.NODEV | Flag.NOEXEC
# source, target, type, flags, data: what systemd expects to find when it takes over
_PSEUDO = (
    ("proc", "/proc", "proc", _SAFE, ""),
    ("sysfs", "/sys", "sysfs", _SAFE, ""),
    ("devtmpfs", "/dev", "devtmpfs", Flag.NOSUID, "mode=0755"),
    ("tmpfs", "/run", "tmpfs", Flag.NOSUID | Flag.NODEV, "mode=0755"),
    ("securityfs", "/sys/kernel/security", "securityfs", _SAFE, ""),
)


class BringUp:
    """``First`` of a real machine (boot/host); PID 1 has exactly one."""

    def __init__(self) -> None:
        self._clock = SystemClock()
        self._console: Console
        self._drivers: Drivers

    def mount_pseudo(self) -> None:
        """Mount the kernel's own file systems."""
        for source, target, kind, flags, data in _PSEUDO:
            folder = Path(target)
            folder.mkdir(exist_ok=True)
            mount(source, folder, fstype=kind, flags=flags, data=data)

    def ignore_signals(self) -> None:
        """Let nobody end PID 1 from the keyboard."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    def open_console(self) -> None:
        """Open the console and the kernel's log."""
        self._console = Console(Path("/dev/console"), Path("/dev/kmsg"), self._clock)

    def say(self, text: str) -> None:
        """Write one line of progress."""
        self._console.say(text)

    def fail(self, text: str) -> None:
        """Write the one line that says why this boot ends here."""
        self._console.fail(text)

    def read_settings(self) -> bytes:
        """Return the settings that the builder put into this initrd."""
        return (FOLDER / SETTINGS_FILE).read_bytes()

    def read_command_line(self) -> str:
        """Return what the kernel was started with."""
        return read_text("/proc/cmdline")

    def load_drivers(self, settings: Settings) -> None:
        """Begin to load drivers, and return at once."""
        self._drivers = Drivers(settings)

    def seen(self) -> list[str]:
        """Return what of this machine is there, a line each, for whoever looks at a boot that ended
        here; nothing where that cannot be told."""
        from machineos.host.disk import box

        try:
            return box.early_lines(box.look(Path("/sys")))
        except (MachineOSError, OSError):
            return []

    def host(self) -> Host:
        """Return the rest of the machine; importing what it takes is most of Python's start."""
        from machineos.boot.machine import Machine

        return Machine(self._console, self._drivers, self._clock)

    def sleep(self, seconds: float) -> None:
        """Wait."""
        self._clock.sleep(seconds)

    def power_off(self) -> None:
        """Switch the machine off."""
        power(Power.OFF)

    def restart(self) -> None:
        """Restart the machine."""
        power(Power.RESTART)
