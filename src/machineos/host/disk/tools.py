"""The tools for disks, run: tables, file systems, LVM. ``cryptsetup`` has those for LUKS.

Invariant: what these functions wrote is on the disk, past its own cache, when they return. sfdisk,
mkfs.ext4 and mkfs.vfat see to that themselves (seen with strace); LVM is not known to.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from machineos.core.run import perform, run
from machineos.core.size import show_size
from machineos.errors import MachineOSError, SpaceError
from machineos.host.disk import direct, integrity, mkfs, sfdisk
from machineos.host.disk.lvm import Group, log_size, parse_report

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from machineos.core.files import Sync
    from machineos.core.secret import Secret
    from machineos.host.disk.lvm import LogicalVolume, Report

# A disk that hangs, or metadata that leads the kernel in a circle, must not stop a boot.
ACTIVATION_SECONDS = 120.0
FilesystemKind = Literal["ext4", "vfat"]


def write_table(device: Path, partitions: Sequence[sfdisk.PartitionSpec]) -> None:
    """Replace the partition table of ``device`` and forget what was on it. Raises: ToolError."""
    perform(sfdisk.table_command(device, partitions))


def make_filesystem(kind: FilesystemKind, device: Path, *, label: str) -> None:
    """Make a file system; what was on ``device`` is lost. Raises: ToolError."""
    make = mkfs.fat32_command if kind == "vfat" else mkfs.ext4_command
    perform(make(device, label=label))


def format_integrity(device: Path, name: str, key: Secret) -> Path:
    """Make ``device`` one whose blocks are authenticated, and open it; what was on it is lost.
    Return the node. Raises: ToolError."""
    command = integrity.format_command(device)
    run(command.argv, input=key.view(), timeout=command.timeout)
    node = open_integrity(device, name, key)
    for at_end in (False, True):
        direct.write_zeros(node, integrity.EDGE, at_end=at_end)
    return node


def open_integrity(device: Path, name: str, key: Secret) -> Path:
    """Open it and return the node. Raises: ToolError (another key shows when it is read)."""
    command = integrity.open_command(device, name)
    run(command.argv, input=key.view(), timeout=command.timeout)
    return integrity.mapped(name)


def close_integrity(name: str) -> None:
    """Close it; one that is not open is no error. Raises: ToolError (in use)."""
    if integrity.mapped(name).exists():
        perform(integrity.close_command(name))


def create_group(group: Group) -> None:
    """Make the group and its pool; what was on its device is lost. Raises: ToolError."""
    for command in group.create_commands():
        perform(command)
    flush(group.device)


def make_group(name: str, device: Path, *, key: Secret) -> None:
    """Make the group ``name`` on ``device``, whose blocks ``key`` authenticates, and take it down
    again; what was there is lost. Raises: ToolError."""
    mapped = integrity.name_of(name)
    try:
        group = Group(name, format_integrity(device, mapped, key))
        create_group(group)
        perform(group.deactivate_command())
    except MachineOSError:
        with suppress(MachineOSError):  # what went wrong first is what counts
            perform(Group(name, integrity.mapped(mapped)).deactivate_command())
            close_integrity(mapped)
        raise
    close_integrity(mapped)
    flush(device)


class Activation:
    """The volumes of the group ``name`` on ``device``, whose blocks ``key`` authenticates, on their
    way: in a thread, since both programs take a second. The key is overwritten when it was used."""

    def __init__(self, name: str, device: Path, key: Secret) -> None:
        self._complaint = ""
        self._thread = threading.Thread(target=self._run, args=(name, device, key), daemon=True)
        self._thread.start()

    def wait(self, seconds: float = ACTIVATION_SECONDS) -> str:
        """Return when all are there that can be, and what was wrong with others: LVM shows those
        that are whole whatever the rest is. Waits no longer than ``seconds`` from now on."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            return f"no end after {seconds:.0f} s"
        return self._complaint

    def _run(self, name: str, device: Path, key: Secret) -> None:
        try:
            node = open_integrity(device, integrity.name_of(name), key)
            key.wipe()
            perform(Group(name, node).activate_command())
        except MachineOSError as error:
            self._complaint = error.message
        except Exception as error:  # noqa: BLE001 (of a thread nobody else hears)
            self._complaint = f"unexpected {type(error).__name__}: {error}"
        finally:
            key.wipe()


class VolumeGroup:
    """A volume group whose commands are run. Every call raises ToolError."""

    def __init__(self, group: Group) -> None:
        self._group = group

    @property
    def name(self) -> str:
        """Its name, which is that of its folder of devices."""
        return self._group.name

    def volumes(self) -> dict[str, LogicalVolume]:
        """Return the volumes by name. Raises: DocumentError, too."""
        return self._report().volumes

    def log_size(self) -> int:
        """Return what is kept for the machine's own log (bytes). Raises: DocumentError, too."""
        return log_size(self._report().pool)

    def create_volume(self, name: str, size: int) -> None:
        """Make a volume of ``size`` bytes, rounded up to extents, that is not finished.

        Raises: SpaceError, when less is left that no other volume was promised.
        """
        room = self._report().room_for(name)
        if size > room:
            raise SpaceError(
                f"volume {name}: {show_size(size)} are wanted, and {show_size(max(room, 0))} of "
                f"{self.name} are left"
            )
        perform(self._group.create_volume_command(name, size))

    def _report(self) -> Report:
        return parse_report(perform(self._group.report_command()).stdout)

    def finish_volume(self, name: str) -> None:
        """Say that a volume is whole."""
        perform(self._group.finish_volume_command(name))

    def rename_volume(self, name: str, new: str) -> None:
        """Rename a volume."""
        perform(self._group.rename_volume_command(name, new))

    def remove_volume(self, name: str) -> None:
        """Remove a volume and what is on it."""
        perform(self._group.remove_volume_command(name))


def flush(device: Path, *, sync: Sync = os.fsync) -> None:
    """Wait until everything written to ``device`` is past the disk's own cache."""
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)
