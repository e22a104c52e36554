"""Kernel modules: those that every boot needs, and the drivers of the devices that are there.

The first are loaded in a thread: the kernel checks the signature of each, which takes as long as
the rest of Python's start, and needs none of it. Nothing else happens before they are there: IMA
measures each under Secure Boot, and the TPM ends a policy session when a PCR changes. Further
drivers are loaded only as long as what is looked for has not been found: most machines have
controllers that nothing hangs on.
"""

from __future__ import annotations

import fnmatch
import threading
from bisect import bisect_left
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.boot.environment import read_text
from machineos.document.between.bootsettings import FOLDER
from machineos.errors import BootError, MachineOSError
from machineos.host.kernel import syscalls as kernel

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from machineos.document.between.bootsettings import Settings

SYSFS = Path("/sys")
MODULES = FOLDER / "modules"


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
        present = sorted(aliases(self._sysfs))
        for pattern, names in self._settings.drivers:
            if not self._loaded.issuperset(names) and any(served(pattern, present)):
                self._load(names)
                return True
        return False

    def all(self) -> None:
        """Load drivers until nothing new appears. Raises: MissingError, ToolError."""
        while self.more():
            pass

    def filesystem(self, kind: str) -> None:
        """Load what mounting a file system of type ``kind`` takes. Raises: ToolError."""
        self._load(self._settings.filesystems.get(kind, ()))

    def _begin(self) -> None:
        try:
            self._load(self._settings.modules)
            self.more()
        except MachineOSError as error:
            self._failed = error
        except OSError as error:
            self._failed = BootError(f"kernel modules: {error}")

    def _load(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self._loaded:
                kernel.load_module(self._folder / name)
                self._loaded.add(name)


def served(pattern: str, present: Sequence[str]) -> Iterator[str]:
    """Yield those of the sorted aliases ``present`` that a driver with this pattern serves.

    What a pattern has before its first special character decides nearly always, and is looked up.
    """
    start = pattern[: min((pattern + special).index(special) for special in "*?[")]
    for alias in present[bisect_left(present, start) :]:
        if not alias.startswith(start):
            return
        if fnmatch.fnmatchcase(alias, pattern):
            yield alias


def aliases(sysfs: Path) -> set[str]:
    """Return the alias (kernel docs, driver-api/driver-model) of every device on every bus."""
    found = set()
    for bus in _names(sysfs / "bus"):
        folder = f"{sysfs}/bus/{bus}/devices"
        found |= {read_text(f"{folder}/{device}/modalias") for device in _names(folder)}
    return found - {""}


def _names(folder: Path | str) -> list[str]:
    try:
        return [entry.name for entry in Path(folder).iterdir()]
    except FileNotFoundError:
        return []
