"""The persistent volumes of services: encrypted, on logical volumes of this machine.

Each call makes something so, and does no harm when it was so already. In which order they make a
volume that survives being cut off is decided by whoever uses them (``service.plan.volumes``).
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from machineos.document.model.names import opened_name
from machineos.errors import ConflictError, ToolError
from machineos.state.volumes import storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from machineos.document.model.names import Label, VolumeName
    from machineos.host.disk.lvm import LogicalVolume


class Volumes(Protocol):
    """A volume group (``host.disk.tools.VolumeGroup``). Every call raises ToolError."""

    @property
    def name(self) -> str:
        """Its name, which is that of its folder of devices."""
        ...

    def volumes(self) -> dict[str, LogicalVolume]:
        """Return the volumes by name."""
        ...

    def create_volume(self, name: VolumeName, size: int) -> None:
        """Make a volume that is not finished."""
        ...

    def finish_volume(self, name: VolumeName) -> None:
        """Say that a volume is whole."""
        ...

    def rename_volume(self, name: VolumeName, new: VolumeName) -> None:
        """Rename a volume."""
        ...

    def remove_volume(self, name: VolumeName) -> None:
        """Remove a volume."""
        ...


class Sealing(Protocol):
    """How one is encrypted (``state.volumes.storage``). Every call raises ToolError."""

    def format_sealed(self, device: Path, name: str, public: bytes, label: str) -> None:
        """Encrypt a device and make a file system in it; it stays open."""
        ...

    def close_sealed(self, name: str) -> None:
        """Close it, if it is open."""
        ...


class LogicalVolumes:
    """The volumes of ``group``, opened below ``dev``; new ones are sealed to ``public`` (32 bytes),
    so that the next boot of this machine can open them, and nobody else."""

    def __init__(
        self,
        group: Volumes,
        public: bytes,
        dev: Path = Path("/dev"),
        *,
        sealing: Sealing = storage,
    ) -> None:
        self._group = group
        self._public = public
        self._devices = dev / group.name
        self._opened = dev / "mapper"
        self._sealing = sealing

    @property
    def folder(self) -> Path:
        """Where they are once they are open."""
        return self._opened

    def has_device(self, label: VolumeName) -> bool:
        """Return whether a volume is whole and open: it has its name only then."""
        opened = self._opened / opened_name(label)
        return opened.exists() and (self._devices / label).exists()

    def names(self) -> tuple[str, ...]:
        """Return the names of all volumes. Raises: ToolError."""
        return tuple(sorted(self._group.volumes()))

    def unfinished(self) -> dict[str, bool]:
        """Return of all volumes whether they are not finished, by name. Raises: ToolError."""
        found = self._group.volumes()
        return {name: found[name].unfinished for name in sorted(found)}

    def create(self, name: VolumeName, size: int) -> None:
        """Make a volume of ``size`` bytes that is not finished, unless it is there.

        Raises: ToolError (no room).
        """
        with self._unless(lambda names: name in names):
            self._group.create_volume(name, size)

    def format(self, name: VolumeName, label: Label) -> None:
        """Encrypt a volume, whose content is lost, and make an ext4 file system in it; it is open
        then. Raises: ToolError, VerificationError (no public key)."""
        self._sealing.format_sealed(self._devices / name, name, self._public, label)

    def finish(self, name: VolumeName) -> None:
        """Say that a volume is whole, unless that was said. Raises: ToolError."""
        self._group.finish_volume(name)

    def rename(self, name: VolumeName, new: VolumeName) -> None:
        """Rename a volume, unless it has been. Raises: ToolError."""
        with self._unless(lambda names: new in names and name not in names):
            self._group.rename_volume(name, new)

    def remove(self, name: VolumeName) -> None:
        """Remove a volume and what is on it, unless it is gone. Raises: ToolError (in use)."""
        self._sealing.close_sealed(name)
        with self._unless(lambda names: name not in names):
            self._group.remove_volume(name)

    @contextmanager
    def _unless(self, done: Callable[[tuple[str, ...]], bool]) -> Iterator[None]:
        """Let an error pass when what was asked for is so already: LVM is asked only then."""
        try:
            yield
        except ToolError:
            if not done(self.names()):
                raise


def own_folder(path: Path, *, uid: int, gid: int) -> None:
    """Make a folder that belongs to this owner alone (0700); what is there stays as it is.

    It appears with its owner, so none is ever left behind that its service could not write to.
    Raises: ConflictError (something else is there).
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        hidden = path.with_name(f".{path.name}.new")
        hidden.mkdir(mode=0o700, exist_ok=True)
        os.chown(hidden, uid, gid, follow_symlinks=False)
        hidden.rename(path)
        return
    if not stat.S_ISDIR(found.st_mode):
        raise ConflictError(f"storage {path.parent.name}: {path} is not a folder")
