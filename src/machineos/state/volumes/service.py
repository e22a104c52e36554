"""The persistent volumes of services: logical volumes with ext4, on the disk of this machine.

Each call makes something so, and does no harm when it was so already. In which order they make a
volume that survives being cut off is decided by whoever uses them (``service.plan.volumes``).
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from machineos.errors import ConflictError, ToolError
from machineos.host.disk import lvm, tools

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from machineos.core.run import Running
    from machineos.document.model.names import Label, VolumeName
    from machineos.host.disk.lvm import LogicalVolume


class Volumes(Protocol):
    """A volume group (``host.disk.tools.VolumeGroup``). Every call raises ToolError."""

    @property
    def name(self) -> str:
        """Its name, which is that of its folder of devices."""
        ...

    def begin_activation(self) -> Running:
        """Begin to make the volumes available."""
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


class LogicalVolumes:
    """The volumes of ``group``, whose devices appear below ``dev``."""

    def __init__(self, group: Volumes, dev: Path = Path("/dev")) -> None:
        self._group = group
        self._dev = dev / group.name
        self._active = False
        self._activation: Running | None = None

    @property
    def folder(self) -> Path:
        """Where their devices are."""
        return self._dev

    def begin(self) -> None:
        """Have the volumes made available while there are other things to do.

        A failure is reported when a volume is asked for.
        """
        with suppress(ToolError):
            self._activation = self._group.begin_activation()

    def has_device(self, label: VolumeName) -> bool:
        """Return whether a volume has a device, once those that exist have theirs.

        Raises: ToolError (the group cannot be made available).
        """
        if not self._active:
            begun, self._activation = self._activation, None
            (begun or self._group.begin_activation()).wait(lvm.TIMEOUT)
            self._active = True
        return (self._dev / label).exists()

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
        """Make an ext4 file system on a volume, whose content is lost. Raises: ToolError."""
        tools.make_filesystem("ext4", self._dev / name, label=label)

    def finish(self, name: VolumeName) -> None:
        """Say that a volume is whole, unless that was said. Raises: ToolError."""
        self._group.finish_volume(name)

    def rename(self, name: VolumeName, new: VolumeName) -> None:
        """Rename a volume, unless it has been. Raises: ToolError."""
        with self._unless(lambda names: new in names and name not in names):
            self._group.rename_volume(name, new)

    def remove(self, name: VolumeName) -> None:
        """Remove a volume and what is on it, unless it is gone. Raises: ToolError (in use)."""
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
        with suppress(FileExistsError):
            hidden.mkdir(mode=0o700)
        _require_folder(hidden, hidden.lstat())
        os.chown(hidden, uid, gid, follow_symlinks=False)
        hidden.rename(path)
        return
    _require_folder(path, found)


def _require_folder(path: Path, found: os.stat_result) -> None:
    """Refuse what is no folder itself: a link of whoever has the disk would lead a service out of
    its volume. Raises: ConflictError."""
    if not stat.S_ISDIR(found.st_mode):
        raise ConflictError(f"storage {path.parent.name}: {path} is not a folder")
