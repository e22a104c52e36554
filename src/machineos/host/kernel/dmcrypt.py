"""dm-crypt volumes whose key only the kernel holds.

Shared with the initrd: standard library and core only. The key is in root's user keyring as long as
the volume is open, so that a larger size or a snapshot of it can be opened by the key's name, which
the table says; nobody reads it, neither there nor in the table. Kernel documentation:
admin-guide/device-mapper/dm-crypt. Names and UUIDs are those of libcryptsetup, so that ``cryptsetup
status`` and ``close`` work on what is opened here. Where a volume is found is a link in a folder of
our own, in which nobody else makes or removes any: it is there as long as the volume is open.
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import TYPE_CHECKING

from machineos.errors import MachineOSError, MissingError, ToolError
from machineos.host.kernel import devicemapper, keyring
from machineos.host.kernel.crypttable import OPENED, SECTOR_SIZE, key_of, parameters
from machineos.host.kernel.devicemapper import Table

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.core.secret import Secret
    from machineos.host.kernel.crypttable import CryptVolume

_GET_SIZE = 0x80081272  # BLKGETSIZE64 of linux/fs.h


def open_volume(volume: CryptVolume, key: Secret, *, folder: Path = OPENED) -> Path:
    """Open a volume and return its node. Whether the key is the right one shows when it is read.

    Raises: ConflictError (the name is taken), MissingError, ToolError.
    """
    descriptor = _open(volume.device)
    try:
        number = os.fstat(descriptor).st_rdev
        size = (_size(descriptor) - volume.offset) // SECTOR_SIZE * SECTOR_SIZE
    except OSError as error:
        raise ToolError(f"{volume.device}: {error.strerror}") from error
    finally:
        os.close(descriptor)
    if size <= 0:
        raise ToolError(f"{volume.device}: too small for an encrypted volume")
    description = f"machineos:{volume.name}"
    line = parameters(volume, f"{os.major(number)}:{os.minor(number)}", description)
    uuid = f"CRYPT-LUKS2-{volume.uuid.replace('-', '')}-{volume.name}"
    try:
        with devicemapper.opened() as control, keyring.kept_key(description, key):
            node = control.create(volume.name, uuid, Table("crypt", size, line), writable=True)
    except OSError as error:
        raise ToolError(f"{volume.device}: cannot be opened: {error.strerror}") from error
    return _link(node, folder / volume.name)


def rename_volume(name: str, new: str, *, folder: Path = OPENED) -> Path:
    """Give an open volume another name, whoever uses it, and return its node.

    Raises: MissingError, ConflictError, ToolError.
    """
    with devicemapper.opened() as control:
        node = control.find(name)
        if node is None:
            raise MissingError(f"there is no device {name}")
        # First: whoever is cut off before the device has its name finds it by its link.
        link = _link(node, folder / new)
        try:
            control.rename(name, new)
        except MachineOSError:
            link.unlink()
            raise
    (folder / name).unlink(missing_ok=True)
    return link


def close_volume(name: str, *, folder: Path = OPENED) -> None:
    """Close a volume; one that is not open is no error. Raises: ToolError (in use)."""
    with devicemapper.opened() as control:
        node = control.find(name)
        key = key_of(control.table(name).parameters) if node is not None else None
        # First: a link that outlived its device would lead to the next one of that number.
        (folder / name).unlink(missing_ok=True)
        try:
            control.remove(name)
        except MachineOSError:
            if node is not None:
                _link(node, folder / name)
            raise
    if key is not None:
        keyring.drop_key(key)


def _open(device: Path) -> int:
    try:
        return os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise MissingError(f"{device} does not exist") from error
    except OSError as error:
        raise ToolError(f"{device}: {error.strerror}") from error


def _size(descriptor: int) -> int:
    answer = fcntl.ioctl(descriptor, _GET_SIZE, bytes(8))
    return int(struct.unpack("=Q", answer)[0])


def _link(node: Path, path: Path) -> Path:
    """Show a device under its name. Raises: ToolError."""
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(os.path.relpath(node, path.parent))
    except OSError as error:
        raise ToolError(f"{path}: {error.strerror}") from error
    return path
