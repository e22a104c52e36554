"""Where the volumes of services are: a logical volume per persistent label, memory for others.

Invariant: a volume that exists is used as it is, at every boot; nothing here formats or removes one
(the predecessor made persistent volumes anew at each boot). Encryption is not there yet.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from machineos.core.paths import safe_join
from machineos.core.run import Running, perform
from machineos.errors import ConflictError, DocumentError, Fault, MissingError, ToolError
from machineos.host.disk import lvm, tools
from machineos.host.kernel.mount import Flag, is_mounted, mount

if TYPE_CHECKING:
    from collections.abc import Sequence

    from machineos.document.between.handover import Volume

_FLAGS = Flag.NOSUID | Flag.NODEV
_MIB = 1 << 20


class StorageProvider(Protocol):
    """Gives out the folders that services write to."""

    def provide(self, label: str, *, uid: int, gid: int) -> Path:
        """Return the folder of a label, made with this owner if it is new.

        Raises: DocumentError, ConflictError.
        """
        ...


class FolderStorage:
    """A folder per label under ``root``, mode 0700."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def provide(self, label: str, *, uid: int, gid: int) -> Path:
        """Return the folder of ``label``. What is in it, and its owner, are left as they are."""
        try:
            path = safe_join(self._root, label)
        except ValueError as error:
            raise DocumentError("storage", [Fault("label", 0, str(error))]) from error
        # The root is on the path to every volume, so containers must be able to pass it.
        self._root.mkdir(mode=0o711, parents=True, exist_ok=True)
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            if not stat.S_ISDIR(path.lstat().st_mode):
                raise ConflictError(f"storage {label}: {path} is not a folder") from None
        else:
            os.chown(path, uid, gid, follow_symlinks=False)
        return path


class LogicalVolumes:
    """Persistent labels as logical volumes of ``group`` with ext4, others as tmpfs of their size.

    Each is mounted at ``root/label``; the service gets the folder ``volume`` in it, so that what
    the file system keeps for itself (lost+found) stays out of sight.
    """

    def __init__(
        self, root: Path, group: lvm.Group, volumes: Sequence[Volume], dev: Path = Path("/dev")
    ) -> None:
        self._root = root
        self._group = group
        self._volumes = {volume.label: volume for volume in volumes}
        self._dev = dev / group.name
        self._active = False
        self._activation: Running | None = None

    def begin(self) -> None:
        """Have the volumes made available while there are other things to do.

        A failure is reported when a volume is asked for.
        """
        if any(volume.persistent for volume in self._volumes.values()):
            with suppress(ToolError):
                self._activation = self._begin()

    def provide(self, label: str, *, uid: int, gid: int) -> Path:
        """Return the folder of ``label``, on its volume, which is made when it is new.

        Raises: MissingError (no such label), ToolError (no room, no group), ConflictError.
        """
        volume = self._volumes.get(label)
        if volume is None:
            raise MissingError(f"storage {label} is not defined by any manifest")
        target = self._root / label
        self._root.mkdir(mode=0o711, parents=True, exist_ok=True)
        target.mkdir(mode=0o711, exist_ok=True)
        if not is_mounted(target):
            if volume.persistent:
                mount(self._device(volume), target, "ext4", _FLAGS)
            else:
                mount("tmpfs", target, "tmpfs", _FLAGS, f"size={volume.size}m,mode=0711")
        return FolderStorage(target).provide("volume", uid=uid, gid=gid)

    def _device(self, volume: Volume) -> Path:
        if not self._active:
            begun, self._activation = self._activation, None
            (begun or self._begin()).wait(lvm.TIMEOUT)
            self._active = True
        device = self._dev / volume.label
        if not device.exists():
            self._create(volume)
        return device

    def _create(self, volume: Volume) -> None:
        """Make a volume, unless it is there after all.

        The label's name appears only with a file system on it, so a crash in between leaves a
        volume that is known to be unfinished.
        """
        group = self._group
        present = lvm.parse_volumes(perform(group.report_command()).stdout)
        if volume.label in present:
            raise MissingError(f"storage {volume.label}: {self._dev} does not show its volume")
        unfinished = f"{volume.label}.new"
        if unfinished in present:
            perform(group.remove_volume_command(unfinished))
        perform(group.create_volume_command(unfinished, volume.size * _MIB))
        tools.make_filesystem("ext4", self._dev / unfinished, label=volume.label[:16])
        perform(group.rename_volume_command(unfinished, volume.label))

    def _begin(self) -> Running:
        return Running(self._group.activate_command().argv)
