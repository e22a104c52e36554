"""Kernel modules: those that every boot needs, and the drivers of the devices that are there.

The first are loaded in a thread: the kernel checks the signature of each, which takes as long as
the rest of Python's start, and needs none of it. Further drivers are loaded only as long as what is
looked for has not been found: most machines have controllers that nothing hangs on.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.boot.aliases import module_options, next_driver
from machineos.document.between.bootsettings import MODULES
from machineos.errors import BootError, MachineOSError
from machineos.host.kernel import syscalls as kernel

if TYPE_CHECKING:
    from collections.abc import Iterable

    from machineos.document.between.bootsettings import Settings

SYSFS = Path("/sys")
_TEXT = 65536


class Drivers:
    """Modules on their way into the kernel, in the order of the settings."""

    def __init__(self, settings: Settings, folder: Path = MODULES, sysfs: Path = SYSFS) -> None:
        self._settings = settings
        self._folder = folder
        self._sysfs = sysfs
        self._loaded: set[str] = set()
        self._failed: MachineOSError | None = None
        self._thread = threading.Thread(target=self._begin, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Return when the modules for every boot and a first driver are there.

        Raises: MachineOSError (one was refused, or is missing).
        """
        self._thread.join()
        if self._failed is not None:
            raise self._failed

    def more(self) -> bool:
        """Load one more driver that a device here wants; return False when there is none.

        Raises: MissingError, ToolError.
        """
        names = next_driver(self._settings.drivers, aliases(self._sysfs), self._loaded)
        self.load(names or ())
        return names is not None

    def load(self, names: Iterable[str]) -> None:
        """Load these modules, but for those that were. Raises: MissingError, ToolError."""
        for name in names:
            if name not in self._loaded:
                options = module_options(self._settings.command_line, name)
                kernel.load_module(self._folder / name, options=options)
                self._loaded.add(name)

    def _begin(self) -> None:
        try:
            self._load_watchdogs()
            self.load(self._settings.modules)
            self.more()
            # Last, for the disk is found meanwhile. Not every kernel has it as a module.
            self.load(self._settings.filesystems.get("ext4", ()))
        except MachineOSError as error:
            self._failed = error
        except OSError as error:
            self._failed = BootError(f"kernel modules: {error}")

    def _load_watchdogs(self) -> None:
        """Load the drivers of watchdogs, until none is asked for: one makes the device of another.

        A boot goes on without one that the kernel does not take.
        """
        table, tried = self._settings.watchdogs, set(self._loaded)
        while names := next_driver(table, aliases(self._sysfs), tried):
            tried |= set(names)
            with suppress(MachineOSError):
                self.load(names)


def aliases(sysfs: Path) -> set[str]:
    """Return the alias (kernel docs, driver-api/driver-model) of every device on every bus."""
    found = set()
    for bus in _names(sysfs / "bus"):
        folder = f"{sysfs}/bus/{bus}/devices"
        found |= {read_text(f"{folder}/{device}/modalias") for device in _names(folder)}
    return found - {""}


def read_text(path: str | Path) -> str:
    """Return a small pseudo file without the final newline, empty when it is not there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # not every firmware has every DMI field
        return ""
    with os.fdopen(descriptor, "rb") as file:
        return file.read(_TEXT).decode("utf-8", "replace").strip()


def _names(folder: Path | str) -> list[str]:
    try:
        return [entry.name for entry in Path(folder).iterdir()]
    except FileNotFoundError:
        return []
