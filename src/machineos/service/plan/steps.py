"""The steps of running services: frozen values, each one call of the host. Pure.

``on`` is that call and nothing else; only the runner's ``perform`` uses it. What changes a disk has
a fault point (``core.steps``); everything else lies in memory and is gone with the power.

Structs and not dataclasses: they cost a twentieth at import, and mosd imports them at boot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeVar

import msgspec

from machineos.core.steps import Step

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.core.digest import Digest
    from machineos.core.idrange import IdRange
    from machineos.document.model.names import Label, Unfinished
    from machineos.host.kernel.flags import Flag
    from machineos.host.unit.systemctl import UnitState
    from machineos.oci.model.atomfs import Layer
    from machineos.service.plan.host import Around, Host, Inside, Mounted, Persistent
    from machineos.service.plan.model import Folders

A = TypeVar("A", covariant=True)


class Act(Step[A]):
    """A step of this plan."""

    __slots__ = ()

    def on(self, host: Host) -> A:
        """Let ``host`` do it, and return the answer. Raises: what the host raises."""
        raise NotImplementedError


class Say(msgspec.Struct, Act[None], frozen=True):
    """A line for the log."""

    text: str

    def on(self, host: Host) -> None:
        host.say(self.text)


class Look(msgspec.Struct, Act["Around"], frozen=True):
    """What an earlier mosd left."""

    folders: Folders

    def on(self, host: Host) -> Around:
        return host.look(self.folders)


class ReadBlob(msgspec.Struct, Act[bytes | None], frozen=True):
    """A blob of the image store."""

    digest: Digest
    limit: int

    def on(self, host: Host) -> bytes | None:
        return host.read_blob(self.digest, self.limit)


class ReadFile(msgspec.Struct, Act[bytes | None], frozen=True):
    """A file of ours."""

    path: Path
    limit: int

    def on(self, host: Host) -> bytes | None:
        return host.read_file(self.path, self.limit)


class WriteFile(msgspec.Struct, Act[None], frozen=True):
    """A file of ours, whole or not at all."""

    path: Path
    data: bytes
    mode: int

    def on(self, host: Host) -> None:
        host.write_file(self.path, self.data, self.mode)


class RemoveFile(msgspec.Struct, Act[None], frozen=True):
    """A file of ours, away."""

    path: Path

    def on(self, host: Host) -> None:
        host.remove_file(self.path)


class MakeFolder(msgspec.Struct, Act[None], frozen=True):
    """A folder of ours."""

    path: Path
    mode: int

    def on(self, host: Host) -> None:
        host.make_folder(self.path, self.mode)


class RemoveFolder(msgspec.Struct, Act[None], frozen=True):
    """An empty folder of ours, away."""

    path: Path

    def on(self, host: Host) -> None:
        host.remove_folder(self.path)


class SeeMount(msgspec.Struct, Act["Mounted | None"], frozen=True):
    """What is mounted at a path."""

    path: Path

    def on(self, host: Host) -> Mounted | None:
        return host.mounted(self.path)


class Mount(msgspec.Struct, Act[None], frozen=True):
    """A file system, with all its flags and options."""

    source: str
    target: Path
    fstype: str
    flags: Flag
    data: str = ""

    def on(self, host: Host) -> None:
        host.mount(self.source, self.target, self.fstype, self.flags, self.data)


class Clone(msgspec.Struct, Act[None], frozen=True):
    """A mount shown a second time, owners shifted into ``ids``."""

    source: Path
    target: Path
    ids: IdRange | None

    def on(self, host: Host) -> None:
        host.clone(self.source, self.target, self.ids)


class Unmount(msgspec.Struct, Act[None], frozen=True):
    """What is mounted at a path, away."""

    path: Path

    def on(self, host: Host) -> None:
        host.unmount(self.path)


class LookInside(msgspec.Struct, Act["Inside"], frozen=True):
    """What is at some paths of a mounted image."""

    image: Path
    folders: tuple[str, ...]
    files: tuple[str, ...]

    def on(self, host: Host) -> Inside:
        return host.look_inside(self.image, self.folders, self.files)


class OpenLayer(msgspec.Struct, Act["Path"], frozen=True):
    """The device of a layer, checked by the kernel."""

    layer: Layer
    blob: Path
    signature: Path

    def on(self, host: Host) -> Path:
        return host.open_layer(self.layer, self.blob, self.signature)


class CloseLayer(msgspec.Struct, Act[None], frozen=True):
    """The device of a layer, away."""

    digest: Digest

    def on(self, host: Host) -> None:
        host.close_layer(self.digest)


class SeeVolume(msgspec.Struct, Act[bool], frozen=True):
    """Whether a persistent volume has a device."""

    label: Label

    def on(self, host: Host) -> bool:
        return host.volume_device(self.label)


class ListVolumes(msgspec.Struct, Act["tuple[Persistent, ...]"], frozen=True):
    """All persistent volumes."""

    def on(self, host: Host) -> tuple[Persistent, ...]:
        return host.volumes()


class CreateVolume(msgspec.Struct, Act[None], frozen=True):
    """A persistent volume, empty and not finished."""

    point: ClassVar[str] = "volume created"
    name: Unfinished
    size: int

    @property
    def where(self) -> str:
        return self.name

    def on(self, host: Host) -> None:
        host.create_volume(self.name, self.size)


class FormatVolume(msgspec.Struct, Act[None], frozen=True):
    """A lock and a file system on a new volume."""

    point: ClassVar[str] = "volume formatted"
    name: Unfinished
    label: Label

    @property
    def where(self) -> str:
        return self.name

    def on(self, host: Host) -> None:
        host.format_volume(self.name, self.label)


class FinishVolume(msgspec.Struct, Act[None], frozen=True):
    """The word that a volume is whole: from here on nothing removes it."""

    point: ClassVar[str] = "volume finished"
    name: Unfinished

    @property
    def where(self) -> str:
        return self.name

    def on(self, host: Host) -> None:
        host.finish_volume(self.name)


class RenameVolume(msgspec.Struct, Act[None], frozen=True):
    """The final name of a volume, by which services mount it."""

    point: ClassVar[str] = "volume named"
    name: Unfinished
    new: Label

    @property
    def where(self) -> str:
        return self.new

    def on(self, host: Host) -> None:
        host.rename_volume(self.name, self.new)


class OpenVolume(msgspec.Struct, Act[None], frozen=True):
    """The device of a volume that was just made, by its name."""

    point: ClassVar[str] = "volume opened"
    label: Label

    @property
    def where(self) -> str:
        return self.label

    def on(self, host: Host) -> None:
        host.open_volume(self.label)


class RemoveVolume(msgspec.Struct, Act[None], frozen=True):
    """An unfinished volume, away."""

    point: ClassVar[str] = "volume removed"
    name: Unfinished

    @property
    def where(self) -> str:
        return self.name

    def on(self, host: Host) -> None:
        host.remove_volume(self.name)


class LogSize(msgspec.Struct, Act[int], frozen=True):
    """The bytes that are kept for the machine's own log."""

    def on(self, host: Host) -> int:
        return host.log_size()


class SetJournalsAside(msgspec.Struct, Act[None], frozen=True):
    """Journals that journald of an earlier boot left in the folders of ``folder``, ended: the one
    of this boot begins its own, and reads nothing that root may have put there."""

    point: ClassVar[str] = "journals set aside"
    folder: Path

    def on(self, host: Host) -> None:
        host.set_journals_aside(self.folder)


class OwnFolder(msgspec.Struct, Act[None], frozen=True):
    """The folder in a volume that a service writes to."""

    point: ClassVar[str] = "volume folder"
    path: Path
    uid: int
    gid: int

    @property
    def where(self) -> str:
        return str(self.path)

    def on(self, host: Host) -> None:
        host.own_folder(self.path, self.uid, self.gid)


class MakeBridge(msgspec.Struct, Act[None], frozen=True):
    """The bridge of the services."""

    name: str
    addresses: tuple[str, ...]

    def on(self, host: Host) -> None:
        host.make_bridge(self.name, self.addresses)


class ApplyRules(msgspec.Struct, Act[None], frozen=True):
    """The tables of nftables, replaced."""

    script: str

    def on(self, host: Host) -> None:
        host.apply_rules(self.script)


class Switch(msgspec.Struct, Act[None], frozen=True):
    """A network setting of the kernel, on or off; one that is optional may be missing."""

    name: str
    value: bool
    optional: bool = False

    def on(self, host: Host) -> None:
        host.switch(self.name, self.value, self.optional)


class ShareDisk(msgspec.Struct, Act[None], frozen=True):
    """The disk with the image store, shared by weights from now on."""

    def on(self, host: Host) -> None:
        host.share_disk()


class ListLinks(msgspec.Struct, Act[tuple[str, ...]], frozen=True):
    """All network links of the machine."""

    def on(self, host: Host) -> tuple[str, ...]:
        return host.links()


class ReloadUnits(msgspec.Struct, Act[None], frozen=True):
    """systemd reads the unit files again."""

    def on(self, host: Host) -> None:
        host.reload_units()


class ResetFailed(msgspec.Struct, Act[None], frozen=True):
    """Units that failed may start again."""

    units: tuple[str, ...]

    def on(self, host: Host) -> None:
        host.reset_failed(self.units)


class StartUnits(msgspec.Struct, Act[None], frozen=True):
    """Units, started."""

    units: tuple[str, ...]

    def on(self, host: Host) -> None:
        host.start_units(self.units)


class RunUnit(msgspec.Struct, Act[None], frozen=True):
    """A unit, started, and waited for."""

    unit: str

    def on(self, host: Host) -> None:
        host.run_unit(self.unit)


class StopUnits(msgspec.Struct, Act[None], frozen=True):
    """Units, stopped."""

    units: tuple[str, ...]

    def on(self, host: Host) -> None:
        host.stop_units(self.units)


class ShowUnits(msgspec.Struct, Act["tuple[UnitState, ...]"], frozen=True):
    """The state of units."""

    units: tuple[str, ...]

    def on(self, host: Host) -> tuple[UnitState, ...]:
        return host.show_units(self.units)
