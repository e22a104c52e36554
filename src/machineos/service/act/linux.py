"""The host that services really run on: the kernel, systemd, LVM, nft, each call as it is told.

Decides nothing. What a test bed may lack (device mapper, systemd, LVM) is handed in.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from machineos.core.files import read_bounded, write_atomic
from machineos.core.run import perform
from machineos.errors import MissingError
from machineos.host.kernel import iocost, sysctl
from machineos.host.kernel import mount as mounts
from machineos.host.kernel.idmap import user_namespace
from machineos.host.unit import iproute, journal, nft
from machineos.service.act import rootfs
from machineos.service.plan.host import Around, Inside, Mounted, Persistent
from machineos.state.volumes.service import own_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from machineos.core.digest import Digest
    from machineos.core.idrange import IdRange
    from machineos.document.model.names import Label, Unfinished, VolumeName
    from machineos.host.kernel.flags import Flag
    from machineos.host.unit.systemctl import UnitState
    from machineos.oci.model.atomfs import Layer
    from machineos.service.plan.model import Folders

_MAX_LEASES = 1 << 20


class Layers(Protocol):
    """Block devices whose every block the kernel checks (``act.verity``)."""

    def open(self, layer: Layer, *, blob: Path, signature: Path) -> Path:
        """Return the device; one that is open already is used again if it is the same."""
        ...

    def close(self, digest: Digest) -> None:
        """Give the device of a layer up, if it is open."""
        ...


class Volumes(Protocol):
    """Persistent volumes (``state.volumes.service.LogicalVolumes``)."""

    def has_device(self, label: VolumeName) -> bool:
        """Return whether a volume has a device, once those that exist have theirs."""
        ...

    def unfinished(self) -> dict[str, bool]:
        """Return of all volumes whether they are not finished, by name."""
        ...

    def create(self, name: VolumeName, size: int) -> None:
        """Make a volume of ``size`` bytes that is not finished, unless it is there."""
        ...

    def format(self, name: Unfinished, label: Label) -> None:
        """Make a file system on it."""
        ...

    def finish(self, name: VolumeName) -> None:
        """Say that it is whole."""
        ...

    def rename(self, name: VolumeName, new: VolumeName) -> None:
        """Rename it, unless it has been."""
        ...

    def open(self, label: Label) -> None:
        """Show a volume that was just formatted under its name."""
        ...

    def remove(self, name: VolumeName) -> None:
        """Remove it, unless it is gone."""
        ...

    def log_size(self) -> int:
        """Return the bytes that are kept for the machine's own log."""
        ...


class Units(Protocol):
    """The part of systemd that is needed (``host.unit.systemd.Systemctl``)."""

    def reload(self) -> None:
        """Read the unit files again."""
        ...

    def reset_failed(self, units: Sequence[str]) -> None:
        """Forget how often ``units`` failed."""
        ...

    def start(self, units: Sequence[str]) -> None:
        """Queue the start of ``units``."""
        ...

    def run(self, unit: str) -> None:
        """Start ``unit`` and wait for it."""
        ...

    def stop(self, units: Sequence[str]) -> None:
        """Stop ``units`` and wait for it."""
        ...

    def show(self, units: Sequence[str]) -> dict[str, UnitState]:
        """Return the state of ``units``."""
        ...


class LinuxHost:
    """``service.plan.host.Host``. ``store`` is an OCI layout, ``proc`` is /proc."""

    def __init__(
        self,
        store: Path,
        *,
        layers: Layers,
        volumes: Volumes,
        units: Units,
        log: Callable[[str], None],
        proc: Path = Path("/proc"),
    ) -> None:
        self._store = store
        self._layers = layers
        self._volumes = volumes
        self._units = units
        self._proc = proc
        self.say = log

    def look(self, folders: Folders) -> Around:
        """Return what is in these folders. Raises: OSError."""
        return Around(
            units=_names(folders.units),
            homes=_names(folders.lxc),
            roots=_names(folders.roots),
            images=_names(folders.images),
            leases=self.read_file(folders.leases, _MAX_LEASES),
        )

    def read_blob(self, digest: Digest, limit: int) -> bytes | None:
        """Return a blob, unchecked, None when it is not there. Raises: DocumentError, OSError."""
        return self.read_file(self._store / "blobs" / digest.algorithm / digest.hex, limit)

    def read_file(self, path: Path, limit: int) -> bytes | None:
        """Return the content of a file, None when there is none. Raises: DocumentError, OSError."""
        try:
            return read_bounded(path, limit)
        except MissingError:
            return None

    def write_file(self, path: Path, data: bytes, mode: int) -> None:
        """Put a file there, whole or not at all. Raises: SpaceError, OSError."""
        write_atomic(path, data, mode=mode)

    def remove_file(self, path: Path) -> None:
        """Remove a file, if it is there. Raises: OSError."""
        path.unlink(missing_ok=True)

    def make_folder(self, path: Path, mode: int) -> None:
        """Make a folder with exactly this mode. Raises: OSError."""
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)

    def remove_folder(self, path: Path) -> None:
        """Remove a folder, if it is there and empty. Raises: OSError."""
        try:
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if not any(path.iterdir()):
                raise

    def mounted(self, path: Path) -> Mounted | None:
        """Return what is mounted exactly there. Raises: ToolError, OSError."""
        if not mounts.is_mounted(path):
            return None
        found = path.stat()
        return Mounted(found.st_dev, found.st_uid)

    def mount(self, source: str, target: Path, fstype: str, flags: Flag, data: str) -> None:
        """Mount a file system. Raises: MissingError, ToolError."""
        if not mounts.is_mounted(target):
            mounts.mount(source, target, fstype, flags, data)

    def clone(self, source: Path, target: Path, ids: IdRange | None) -> None:
        """Show a mount a second time, owners shifted. Raises: MissingError, ToolError."""
        if mounts.is_mounted(target):
            return
        if ids is None:
            mounts.bind(source, target, read_only=True)
            return
        with user_namespace(ids) as namespace:
            mounts.clone_idmapped(source, target, namespace, read_only=True)

    def unmount(self, path: Path) -> None:
        """Take away what is mounted there, if anything is. Raises: ToolError (in use)."""
        if mounts.is_mounted(path):
            mounts.unmount(path)

    def look_inside(self, image: Path, folders: Sequence[str], files: Sequence[str]) -> Inside:
        """Look at paths inside a mounted image. Raises: OSError."""
        return Inside(
            folders=tuple((path, rootfs.see_folder(image, path)) for path in folders),
            files=tuple((path, rootfs.see_file(image, path)) for path in files),
        )

    def open_layer(self, layer: Layer, blob: Path, signature: Path) -> Path:
        """Return the device of a layer. Raises: VerificationError, ConflictError, ToolError."""
        where = self._store
        return self._layers.open(layer, blob=where / blob, signature=where / signature)

    def close_layer(self, digest: Digest) -> None:
        """Give up the device of a layer. Raises: ToolError (in use)."""
        self._layers.close(digest)

    def volume_device(self, label: Label) -> bool:
        """Return whether a persistent volume has a device. Raises: ToolError."""
        return self._volumes.has_device(label)

    def volumes(self) -> tuple[Persistent, ...]:
        """Return all persistent volumes. Raises: ToolError."""
        return tuple(Persistent(*each) for each in self._volumes.unfinished().items())

    def create_volume(self, name: Unfinished, size: int) -> None:
        """Make a volume. Raises: ToolError (no room)."""
        self._volumes.create(name, size)

    def format_volume(self, name: Unfinished, label: Label) -> None:
        """Make a file system on it. Raises: ToolError."""
        self._volumes.format(name, label)

    def finish_volume(self, name: Unfinished) -> None:
        """Say that it is whole. Raises: ToolError."""
        self._volumes.finish(name)

    def rename_volume(self, name: Unfinished, new: Label) -> None:
        """Give it its final name. Raises: ToolError."""
        self._volumes.rename(name, new)

    def open_volume(self, label: Label) -> None:
        """Show a volume that was just formatted. Raises: MissingError, ToolError."""
        self._volumes.open(label)

    def remove_volume(self, name: VolumeName) -> None:
        """Remove it. Raises: ToolError (in use)."""
        self._volumes.remove(name)

    def log_size(self) -> int:
        """Return what is kept for the machine's own log. Raises: ToolError."""
        return self._volumes.log_size()

    def set_journals_aside(self, folder: Path) -> None:
        """End the journals of an earlier boot. Raises: OSError."""
        journal.set_aside(folder)

    def own_folder(self, path: Path, uid: int, gid: int) -> None:
        """Make a folder of this owner alone. Raises: ConflictError, OSError."""
        own_folder(path, uid=uid, gid=gid)

    def make_bridge(self, name: str, addresses: tuple[str, ...]) -> None:
        """Make a bridge. Raises: ToolError."""
        exists = any(name == present for _, present in socket.if_nameindex())
        text = iproute.bridge_batch(name, addresses, exists=exists)
        perform(iproute.batch(text))

    def apply_rules(self, script: str) -> None:
        """Let nft carry out a script. Raises: MissingToolError, ToolError (nothing changed)."""
        perform(nft.apply(script))

    def switch(self, name: str, value: bool, optional: bool) -> None:
        """Write 1 or 0 to a network setting. Raises: MissingError, ToolError (refused)."""
        try:
            sysctl.write(f"net/{name}", "1" if value else "0", proc=self._proc)
        except MissingError:
            if not optional:
                raise

    def share_disk(self) -> None:
        """Share the disk of the store by weights. Raises: MissingError, ToolError."""
        iocost.share(self._store)

    def links(self) -> tuple[str, ...]:
        """Return the names of all network links. Raises: OSError."""
        return tuple(sorted(name for _, name in socket.if_nameindex()))

    def reload_units(self) -> None:
        """Let systemd read the unit files again. Raises: ToolError."""
        self._units.reload()

    def reset_failed(self, units: Sequence[str]) -> None:
        """Forget the failures of ``units``."""
        self._units.reset_failed(units)

    def start_units(self, units: Sequence[str]) -> None:
        """Queue the start of ``units``. Raises: ToolError."""
        self._units.start(units)

    def run_unit(self, unit: str) -> None:
        """Start a unit and wait for it. Raises: ToolError."""
        self._units.run(unit)

    def stop_units(self, units: Sequence[str]) -> None:
        """Stop ``units``. Raises: ToolError."""
        self._units.stop(units)

    def show_units(self, units: Sequence[str]) -> tuple[UnitState, ...]:
        """Return the state of ``units``. Raises: ToolError."""
        return tuple(self._units.show(units).values())


def _names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in folder.iterdir()))
