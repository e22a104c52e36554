"""Disk images of a machine: made or imported at its first start, checked at each.

Invariant: an image that is there is never overwritten; a new one appears only when it is whole.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from machineos.errors import MachineError, MissingError
from machineos.host.virt import qemuimg

if TYPE_CHECKING:
    from machineos.vm.model import Disk, Machine
    from machineos.vm.store import MachinePaths


def localize(machine: Machine, paths: MachinePaths) -> Machine:
    """Return the machine with every imported disk pointing to its copy: the disk that has size 0,
    can be written and lies elsewhere. Pure."""
    disks = tuple(
        msgspec.structs.replace(disk, file=str(_copy_of(disk, paths)))
        if _is_import(disk, paths)
        else disk
        for disk in machine.config.disks
    )
    config = msgspec.structs.replace(machine.config, disks=disks)
    return msgspec.structs.replace(machine, config=config)


def place_disks(machine: Machine, paths: MachinePaths) -> None:
    """Make what is missing, import what is elsewhere, and check all that is there.

    Raises: MissingError, MachineError, ToolError.
    """
    for disk in machine.config.disks:
        path = paths.disk(disk.file)
        if _is_import(disk, paths):
            copy = _copy_of(disk, paths)
            _import(disk, path, copy)
            path = copy
        elif not path.exists():
            _make(disk, path)
        _check(disk, path)
    if machine.config.cdrom:
        _require(Path(machine.config.cdrom), "the cdrom")


def _is_import(disk: Disk, paths: MachinePaths) -> bool:
    if disk.size.bytes or disk.frozen or "/" not in disk.file:
        return False
    return Path(disk.file).parent != paths.state


def _copy_of(disk: Disk, paths: MachinePaths) -> Path:
    return paths.state / Path(disk.file).name


def _import(disk: Disk, source: Path, target: Path) -> None:
    if target.exists():
        return
    _require(source, "the disk to import")
    if qemuimg.info(source, disk.kind).backing:
        raise MachineError(f"{source} stands on another image and cannot be imported")
    qemuimg.convert(source, disk.kind, target, disk.kind)
    target.chmod(0o600)


def _make(disk: Disk, path: Path) -> None:
    if not disk.size.bytes:
        raise MissingError(f"the disk {path} does not exist", hint="give it a size to make it")
    if not path.parent.is_dir():
        raise MissingError(f"{path.parent}: there is no such folder for a disk")
    partial = path.with_name(f".{path.name}.partial")
    try:
        qemuimg.create(partial, disk.kind, disk.size.bytes)
        partial.chmod(0o600)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _check(disk: Disk, path: Path) -> None:
    _require(path, "the disk")
    if disk.type == "cdrom" and disk.kind == "raw":
        return
    image = qemuimg.info(path, disk.kind)
    if disk.size.bytes and image.size != disk.size.bytes:
        raise MachineError(
            f"the disk {path} has {image.size} bytes, machine.yaml says {disk.size.bytes}",
            hint="a disk is not resized: set the size that it has, or delete it",
        )


def _require(path: Path, what: str) -> None:
    if not path.exists():
        raise MissingError(f"{what} {path} does not exist")
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise MachineError(f"{what} {path} is neither a file nor a block device")
