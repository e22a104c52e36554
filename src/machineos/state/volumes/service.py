"""The persistent volumes of services: ext4 in LUKS2 in logical volumes of this machine.

Each call makes something so, and does no harm when it was so already. In which order they make a
volume that survives being cut off is decided by whoever uses them (``service.plan.volumes``).
"""

from __future__ import annotations

import os
import stat
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from machineos.core.run import perform
from machineos.core.secret import Secret
from machineos.document.model.names import Unfinished
from machineos.errors import ConflictError, MissingError, ToolError
from machineos.host.disk import cryptsetup, luks, tools
from machineos.host.kernel import dmcrypt
from machineos.host.kernel.crypttable import KEY_SIZE, OPENED

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

    def log_size(self) -> int:
        """Return what is kept for the machine's own log (bytes)."""
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
    """The volumes of ``group``, locked for the machine with the public key ``recipient``.

    Their devices appear below ``dev``, and those of what is in them in ``mapper``. ``random``
    returns that many bytes that nobody else knows.
    """

    def __init__(
        self,
        group: Volumes,
        recipient: bytes,
        *,
        dev: Path = Path("/dev"),
        mapper: Path = OPENED,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._group = group
        self._recipient = recipient
        self._dev = dev / group.name
        self._mapper = mapper
        self._random = random

    @property
    def folder(self) -> Path:
        """Where the devices of open volumes are."""
        return self._mapper

    def has_device(self, label: VolumeName) -> bool:
        """Return whether a volume is open."""
        return (self._mapper / label.mapped).exists()

    def names(self) -> tuple[str, ...]:
        """Return the names of all volumes. Raises: ToolError."""
        return tuple(sorted(self._group.volumes()))

    def unfinished(self) -> dict[str, bool]:
        """Return of all volumes whether they are not finished, by name. Raises: ToolError."""
        found = self._group.volumes()
        return {name: found[name].unfinished for name in sorted(found)}

    def log_size(self) -> int:
        """Return how many bytes the volume of the machine's own log may hold. Raises: ToolError."""
        return self._group.log_size() - luks.HEADER_SIZE

    def create(self, name: VolumeName, size: int) -> None:
        """Make a volume with room for ``size`` bytes that is not finished, unless it is there.

        Raises: ToolError (no room).
        """
        with self._unless(lambda names: name in names):
            self._group.create_volume(name, size + luks.HEADER_SIZE)

    def format(self, name: Unfinished, label: Label) -> None:
        """Lock a volume, whose content is lost, and make an ext4 file system in it, called
        ``label``. It stays open under the name of what is not finished, and nobody can open it
        again before the next boot; the passphrase of its key slot is kept by nobody at all.
        Raises: ToolError, VerificationError."""
        from machineos.state.volumes import sealed  # most boots make none

        device, number = self._dev / name, str(uuid.UUID(bytes=self._random(16), version=4))
        key, passphrase = Secret(self._random(KEY_SIZE)), Secret(self._random(32))
        try:
            token = sealed.make_token(self._recipient, key, name.label, random=self._random)
            dmcrypt.close_volume(name.mapped, folder=self._mapper)
            volume = luks.LuksVolume(device, name.mapped)
            cryptsetup.format_keyed(volume, passphrase, key, uuid=number)
            perform(luks.token_command(device, token))
            opened = sealed.volume_of(device, name.mapped, number)
            node = dmcrypt.open_volume(opened, key, folder=self._mapper)
        finally:
            key.wipe()
            passphrase.wipe()
        tools.make_filesystem("ext4", node, label=label)

    def open(self, label: Label) -> None:
        """Show a volume that was just made under its name, unless it is.

        Raises: MissingError (it is not open: only the initrd has what opens it), ToolError.
        """
        if self.has_device(label):
            return
        new = Unfinished.of(label)
        if not self.has_device(new):
            raise MissingError(
                f"storage {label}: its volume is not open: the initrd opens it at the next boot, "
                "or says why not"
            )
        dmcrypt.rename_volume(new.mapped, label.mapped, folder=self._mapper)

    def finish(self, name: VolumeName) -> None:
        """Say that a volume is whole, unless that was said. Raises: ToolError."""
        self._group.finish_volume(name)

    def rename(self, name: VolumeName, new: VolumeName) -> None:
        """Rename a volume, unless it has been. Raises: ToolError."""
        with self._unless(lambda names: new in names and name not in names):
            self._group.rename_volume(name, new)

    def remove(self, name: VolumeName) -> None:
        """Remove a volume and what is on it, unless it is gone. Raises: ToolError (in use)."""
        if self.has_device(name):
            dmcrypt.close_volume(name.mapped, folder=self._mapper)
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
