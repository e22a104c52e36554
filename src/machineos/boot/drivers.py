"""Kernel modules: those that every boot needs, and the drivers of the devices that are there.

The first are loaded in a thread: the kernel checks the signature of each, which takes as long as
the rest of Python's start, and needs none of it. Others are begun and asked for later, and never
while the TPM is: the kernel measures each module, and a PCR that changes ends a policy session.
Further drivers are loaded only as long as what is looked for has not been found: most machines have
controllers that nothing hangs on.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.boot.aliases import buses, module_options, next_driver
from machineos.document.between.bootsettings import MODULES
from machineos.errors import BootError, MachineOSError
from machineos.host.kernel import syscalls as kernel

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from machineos.document.between.bootsettings import Settings

SYSFS = Path("/sys")
_TEXT = 65536


class Drivers:
    """Modules on their way into the kernel, in the order of the settings."""

    def __init__(self, settings: Settings, folder: Path = MODULES, sysfs: Path = SYSFS) -> None:
        self._settings = settings
        self._folder = folder
        self._devices = Devices(sysfs, buses(settings.drivers, settings.watchdogs))
        self._loaded: set[str] = set()
        self._loading = threading.Lock()
        self._failed: MachineOSError | None = None
        self._begun = threading.Event()
        threading.Thread(target=self._begin, daemon=True).start()

    def wait(self) -> None:
        """Return when the modules for every boot and a first driver are there.

        Raises: MachineOSError (one was refused, or is missing).
        """
        self._begun.wait()
        if self._failed is not None:
            raise self._failed

    def more(self) -> bool:
        """Load one more driver that a device here wants; return False when there is none.

        Raises: MissingError, ToolError.
        """
        names = next_driver(self._settings.drivers, self._devices.aliases(), self._loaded)
        self.load(names or ())
        return names is not None

    def load(self, names: Iterable[str]) -> None:
        """Load these modules, but for those that were. Raises: MissingError, ToolError."""
        with self._loading:
            for name in names:
                if name not in self._loaded:
                    options = module_options(self._settings.command_line, name)
                    kernel.load_module(self._folder / name, options=options)
                    self._loaded.add(name)

    def begin(self, names: tuple[str, ...]) -> None:
        """Begin to load these modules, and return at once; who needs them asks for them, and is
        told what went wrong."""
        if names:
            threading.Thread(target=self._load_quietly, args=(names,), daemon=True).start()

    def _load_quietly(self, names: tuple[str, ...]) -> None:
        with suppress(MachineOSError, OSError):
            self.load(names)

    def _begin(self) -> None:
        try:
            self._load_watchdogs()
            self.load(self._settings.modules)
            self.more()
        except MachineOSError as error:
            self._failed = error
        except OSError as error:
            self._failed = BootError(f"kernel modules: {error}")
        self._begun.set()

    def _load_watchdogs(self) -> None:
        """Load the drivers of watchdogs, until none is asked for: one makes the device of another.

        A boot goes on without one that the kernel does not take.
        """
        table, tried = self._settings.watchdogs, set(self._loaded)
        while names := next_driver(table, self._devices.aliases(), tried):
            tried |= set(names)
            with suppress(MachineOSError):
                self.load(names)


class Devices:
    """The aliases (kernel docs, driver-api/driver-model) of the devices on some buses; the file of
    each is read once as long as the device stays."""

    def __init__(self, sysfs: Path, wanted: Collection[str]) -> None:
        self._folders = tuple(f"{sysfs}/bus/{bus}/devices" for bus in sorted(wanted))
        self._known: dict[str, str] = {}

    def aliases(self) -> set[str]:
        """Return those of every device that is there now."""
        there = [f"{folder}/{name}" for folder in self._folders for name in _names(folder)]
        known = self._known
        self._known = {
            device: known.get(device) or read_text(f"{device}/modalias") for device in there
        }
        return set(self._known.values()) - {""}


def read_text(path: str | Path) -> str:
    """Return a small pseudo file without the final newline, empty when it is not there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # not every firmware has every DMI field
        return ""
    with os.fdopen(descriptor, "rb") as file:
        return file.read(_TEXT).decode("utf-8", "replace").strip()


def _names(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    except FileNotFoundError:
        return []
