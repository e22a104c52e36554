"""Disk images of a machine: made or imported at its first start, checked at each.

Invariant: an image that is there is never overwritten; a new one appears only when it is whole.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.core.run import perform
from machineos.errors import MachineError, MissingError
from machineos.host.virt import qemuimg, tools
from machineos.vm.qemu.placement import check_import, check_size, is_import, is_opaque, place_of

if TYPE_CHECKING:
    from machineos.vm.model import Disk, Machine
    from machineos.vm.paths import MachinePaths


def place_disks(machine: Machine, paths: MachinePaths) -> None:
    """Make what is missing, import what is elsewhere, and check all that is there.

    Raises: MissingError, MachineError, ToolError.
    """
    for disk in machine.config.disks:
        path = place_of(disk, paths)
        if is_import(disk, paths):
            _import(disk, paths.disk(disk.file), path)
        elif not path.exists():
            _make(disk, path)
        _check(disk, path)
    if machine.config.cdrom:
        _require(Path(machine.config.cdrom), "the cdrom")


def _import(disk: Disk, source: Path, target: Path) -> None:
    if target.exists():
        return
    _require(source, "the disk to import")
    check_import(source, tools.describe_image(source, disk.kind))
    tools.convert_image(source, disk.kind, target, disk.kind)
    target.chmod(0o600)


def _make(disk: Disk, path: Path) -> None:
    if not disk.size.bytes:
        raise MissingError(f"the disk {path} does not exist", hint="give it a size to make it")
    if not path.parent.is_dir():
        raise MissingError(f"{path.parent}: there is no such folder for a disk")
    partial = path.with_name(f".{path.name}.partial")
    try:
        perform(qemuimg.create_command(partial, disk.kind, disk.size.bytes))
        partial.chmod(0o600)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _check(disk: Disk, path: Path) -> None:
    _require(path, "the disk")
    if not is_opaque(disk):
        check_size(disk, path, tools.describe_image(path, disk.kind))


def _require(path: Path, what: str) -> None:
    if not path.exists():
        raise MissingError(f"{what} {path} does not exist")
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise MachineError(f"{what} {path} is neither a file nor a block device")
