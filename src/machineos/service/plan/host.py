"""What running services takes of a machine: one protocol, and the values it answers with. Pure.

The only caller is the runner, which gives it one step at a time. Every method makes something so:
called again, with nothing changed in between, it changes nothing and answers the same. So whatever
was cut off half-way is simply done again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from machineos.core.digest import Digest
    from machineos.core.idrange import IdRange
    from machineos.document.model.image import Sight
    from machineos.document.model.names import Label, Unfinished, VolumeName
    from machineos.host.kernel.flags import Flag
    from machineos.host.unit.systemctl import UnitState
    from machineos.oci.model.atomfs import Layer
    from machineos.service.plan.model import Folders


class Around(msgspec.Struct, frozen=True):
    """What was left by an earlier mosd: names in the folder of units and in our own.

    ``homes`` are the folders with LXC's files, one for each container. ``leases`` is the content of
    the file of leases, None when there is none.
    """

    units: tuple[str, ...] = ()
    homes: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    leases: bytes | None = None


class Mounted(msgspec.Struct, frozen=True):
    """What is mounted somewhere: the number of its file system, and the owner of its root."""

    device: int
    uid: int


class Persistent(msgspec.Struct, frozen=True):
    """A persistent volume that LVM has: ``unfinished`` until somebody said that it is whole."""

    name: str
    unfinished: bool = False


class Inside(msgspec.Struct, frozen=True):
    """What was seen inside an image, by path, in the order asked."""

    folders: tuple[tuple[str, Sight], ...]
    files: tuple[tuple[str, Sight], ...]


class Host(Protocol):
    """A machine. Every method may raise MachineOSError (most: ToolError) or OSError."""

    def say(self, text: str) -> None:
        """Write a line to the log."""
        ...

    def look(self, folders: Folders) -> Around:
        """Return what is in these folders."""
        ...

    def read_blob(self, digest: Digest, limit: int) -> bytes | None:
        """Return a blob of the image store, unchecked, None when it is not there.

        Raises: DocumentError (larger than ``limit``).
        """
        ...

    def read_file(self, path: Path, limit: int) -> bytes | None:
        """Return the content of a file of ours, None when there is none."""
        ...

    def write_file(self, path: Path, data: bytes, mode: int) -> None:
        """Put a file there, whole or not at all."""
        ...

    def remove_file(self, path: Path) -> None:
        """Remove a file, if it is there."""
        ...

    def make_folder(self, path: Path, mode: int) -> None:
        """Make a folder with exactly this mode, and those above it."""
        ...

    def remove_folder(self, path: Path) -> None:
        """Remove a folder, if it is there and empty; what is not empty stays."""
        ...

    def mounted(self, path: Path) -> Mounted | None:
        """Return what is mounted exactly there, None when nothing is."""
        ...

    def mount(self, source: str, target: Path, fstype: str, flags: Flag, data: str) -> None:
        """Mount a file system; ``data`` are its own options."""
        ...

    def clone(self, source: Path, target: Path, ids: IdRange | None) -> None:
        """Show the mount at ``source`` also at ``target``, read-only, without set-user-id and
        devices, with owners shifted into ``ids``."""
        ...

    def unmount(self, path: Path) -> None:
        """Take away what is mounted exactly there, if anything is. Raises: ToolError (in use)."""
        ...

    def look_inside(self, image: Path, folders: Sequence[str], files: Sequence[str]) -> Inside:
        """Look at paths inside a mounted image."""
        ...

    def open_layer(self, layer: Layer, blob: Path, signature: Path) -> Path:
        """Return the device whose every block the kernel checks; ``blob`` and ``signature`` are
        absolute or relative to the store. Raises: VerificationError, ConflictError."""
        ...

    def close_layer(self, digest: Digest) -> None:
        """Give up the device of a layer. Raises: ToolError (in use)."""
        ...

    def volume_device(self, label: Label) -> bool:
        """Return whether the persistent volume is open."""
        ...

    def volumes(self) -> tuple[Persistent, ...]:
        """Return all persistent volumes, by name."""
        ...

    def create_volume(self, name: Unfinished, size: int) -> None:
        """Make an unfinished volume of ``size`` bytes; one that is there is left as it is."""
        ...

    def format_volume(self, name: Unfinished, label: Label) -> None:
        """Lock a volume, whose content is lost, and make a file system in it."""
        ...

    def finish_volume(self, name: Unfinished) -> None:
        """Say that a volume is whole."""
        ...

    def rename_volume(self, name: Unfinished, new: Label) -> None:
        """Give a volume its final name, if it has not got it."""
        ...

    def open_volume(self, label: Label) -> None:
        """Show a volume that was just formatted under its name. Raises: MissingError (any other is
        opened by the initrd alone, at the next boot)."""
        ...

    def remove_volume(self, name: VolumeName) -> None:
        """Remove a volume and what is on it, if it is there."""
        ...

    def log_size(self) -> int:
        """Return the bytes that are kept for the machine's own log."""
        ...

    def set_journals_aside(self, folder: Path) -> None:
        """Rename what journald would go on writing to in the folders of ``folder``."""
        ...

    def own_folder(self, path: Path, uid: int, gid: int) -> None:
        """Make a folder of this owner alone; one that is there stays as it is.

        Raises: ConflictError (something else is there).
        """
        ...

    def make_bridge(self, name: str, addresses: tuple[str, ...]) -> None:
        """Make a bridge with these addresses, up; one that is there keeps its links."""
        ...

    def apply_rules(self, script: str) -> None:
        """Let nft carry out a script, all of it or nothing."""
        ...

    def switch(self, name: str, value: bool, optional: bool) -> None:
        """Write 1 or 0 to a network setting of the kernel; an optional one may be missing."""
        ...

    def share_disk(self) -> None:
        """Let the kernel share the disk with the image store by the weights of units.

        Raises: MissingError (this kernel cannot, or there is no such disk).
        """
        ...

    def links(self) -> tuple[str, ...]:
        """Return the names of all network links, in order."""
        ...

    def reload_units(self) -> None:
        """Let systemd read the unit files again."""
        ...

    def reset_failed(self, units: Sequence[str]) -> None:
        """Forget how often ``units`` failed, which would keep them from starting."""
        ...

    def start_units(self, units: Sequence[str]) -> None:
        """Queue the start of ``units``; one that runs goes on."""
        ...

    def run_unit(self, unit: str) -> None:
        """Start a unit and wait until it has started. Raises: ToolError (it failed)."""
        ...

    def stop_units(self, units: Sequence[str]) -> None:
        """Stop ``units`` and wait for it."""
        ...

    def show_units(self, units: Sequence[str]) -> tuple[UnitState, ...]:
        """Return the state of ``units``, one each."""
        ...
