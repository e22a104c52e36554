"""How a service gets its volumes: a logical volume per persistent label, memory for others. Pure.

Invariant: a volume that exists is used as it is; nothing here formats or removes one (the
predecessor made persistent volumes anew at each boot). A volume is unfinished as long as LVM's tag
says so, which it has from its first moment until there is a file system on it; what was cut off
before that is begun again. A label's name appears only on what is finished.
Each is locked (``state.volumes.sealed``): the initrd opens those that there are, and a new one is
opened by who has just made it. So one that LVM has and that is not open waits for the next boot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from machineos.document.model.names import Label, Unfinished
from machineos.errors import MissingError
from machineos.host.kernel.flags import Flag
from machineos.service.plan import steps

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from machineos.document.between.handover import Volume
    from machineos.document.model.install import Mount
    from machineos.service.plan.host import Persistent
    from machineos.service.plan.model import Folders
    from machineos.service.plan.steps import Act

_MIB = 1 << 20
_PAGE = 4096
_LONGEST_LABEL = 16  # of ext4
_FLAGS = Flag.NOSUID | Flag.NODEV | Flag.NOEXEC  # LXC keeps what the source has, and adds nothing


class Seen(msgspec.Struct, frozen=True):
    """A volume that a service mounts: whether it is mounted on the host, and shown by LVM."""

    volume: Volume
    mounted: bool
    device: bool = False

    @property
    def missing(self) -> bool:
        """Whether it is a persistent one that has no device."""
        return self.volume.persistent and not self.mounted and not self.device


def wanted(mounts: Sequence[Mount], volumes: Sequence[Volume]) -> tuple[Volume, ...]:
    """Return the volumes of these mounts, each once. Raises: MissingError (no such label)."""
    known = {volume.label: volume for volume in volumes}
    found = {}
    for mount in mounts:
        if mount.label not in known:
            raise MissingError(f"storage {mount.label} is not defined by any manifest")
        found[mount.label] = known[mount.label]
    return tuple(found.values())


def source(folders: Folders, label: Label) -> Path:
    """Return the folder that a service gets: one in the volume, so that what the file system keeps
    for itself (lost+found) stays out of sight."""
    return folders.data / label / "volume"


def making(
    seen: Seen, folders: Folders, kept: Sequence[Persistent], *, uid: int, gid: int
) -> tuple[Act[object], ...]:
    """Return the steps to a mounted volume with a folder of this owner.

    ``kept`` are the volumes that LVM has; they count only when the volume has no device.
    One that LVM has and that is not open is never made anew: to open it is what fails then.
    """
    volume = seen.volume
    target = folders.data / volume.name
    found: list[Act[object]] = []
    if seen.missing:
        found += new(volume, kept)
    if not seen.mounted:
        found += [steps.MakeFolder(folders.data, 0o711), steps.MakeFolder(target, 0o711)]
        found.append(_mount(volume, folders, target))
    return (*found, steps.OwnFolder(source(folders, volume.name), uid, gid))


def new(volume: Volume, kept: Sequence[Persistent]) -> list[Act[object]]:
    """Return the steps to the device of a volume that has none; ``kept`` are those that LVM has."""
    unfinished = {each.name: each.unfinished for each in kept}
    if volume.label in unfinished:
        return [steps.OpenVolume(volume.name)]
    name = Unfinished.of(volume.name)
    last = (steps.RenameVolume(name, volume.name), steps.OpenVolume(volume.name))
    if not unfinished.get(name, True):
        return [*last]  # whole, whatever it is called: it was cut off before it got its name
    return [
        *([steps.RemoveVolume(name)] if name in unfinished else []),
        steps.CreateVolume(name, volume.size * _MIB),
        steps.FormatVolume(name, Label(volume.name[:_LONGEST_LABEL])),
        steps.FinishVolume(name),
        *last,
    ]


def _mount(volume: Volume, folders: Folders, target: Path) -> Act[object]:
    if volume.persistent:
        device = str(folders.mapper / volume.name.mapped)
        # What is deleted goes back to the pool.
        return steps.Mount(device, target, "ext4", _FLAGS, "discard")
    # An inode for each page: empty files cost the machine's memory, too.
    data = f"size={volume.size}m,nr_inodes={volume.size * _MIB // _PAGE},mode=0711"
    return steps.Mount("tmpfs", target, "tmpfs", _FLAGS, data)
