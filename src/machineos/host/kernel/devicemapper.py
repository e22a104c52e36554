"""The device mapper by ioctl: a device with one table line (linux/dm-ioctl.h, version 4).

Shared with the initrd: standard library only. No udev is asked or waited for: the kernel makes the
node ``/dev/dm-N`` itself, so this works before udev runs and while it is busy.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from machineos.errors import ConflictError, MissingError, ToolError

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTROL = Path("/dev/mapper/control")
SECTOR = 512
_NAME, _UUID = 127, 128
# struct dm_ioctl: version, data_size, data_start, target_count, open_count, flags, event_nr, dev
_HEADER = struct.Struct("<3I I I I i I I 4x Q 128s 129s 7x")
# struct dm_target_spec: sector_start, length, status, next, target_type
_TARGET = struct.Struct("<QQ iI 16s")
_DEV_CREATE, _DEV_REMOVE, _DEV_RENAME, _DEV_SUSPEND, _DEV_STATUS = 3, 4, 5, 6, 7
_TABLE_LOAD, _TABLE_STATUS = 9, 12
_READ_ONLY, _WANT_TABLE = 1, 1 << 4
_BUFFER = 16384


class Table(msgspec.Struct, frozen=True):
    """One line of a table: ``size`` in bytes, a multiple of 512, from the start of the device."""

    target: str
    size: int
    parameters: str


class DeviceMapper:
    """The control device, open for the length of a block."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def create(self, name: str, uuid: str, table: Table, *, writable: bool = False) -> Path:
        """Make a device, read-only unless told, and return its node; nothing is left when that
        fails.

        Raises: ConflictError (the name is taken), OSError with what the target said (``errno``).
        """
        try:
            self._call(_DEV_CREATE, name, uuid=uuid)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            raise ConflictError(f"a device {name} exists already") from error
        try:
            flags = 0 if writable else _READ_ONLY
            self._call(_TABLE_LOAD, name, flags=flags, count=1, data=_encode(table))
            return _node(self._call(_DEV_SUSPEND, name)[0])
        except OSError:
            self.remove(name)
            raise

    def find(self, name: str) -> Path | None:
        """Return the node of a device, None when there is none of that name. Raises: ToolError."""
        try:
            return _node(self._call(_DEV_STATUS, name)[0])
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise ToolError(f"device {name}: {error.strerror}") from error
            return None

    def remove(self, name: str) -> None:
        """Remove a device; one that is not there is no error. Raises: ToolError (in use)."""
        try:
            self._call(_DEV_REMOVE, name)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise ToolError(f"device {name} cannot be removed: {error.strerror}") from error

    def rename(self, name: str, new: str) -> None:
        """Give a device another name, whoever uses it.

        Raises: MissingError (no such device), ConflictError (the name is taken), ToolError.
        """
        try:
            self._call(_DEV_RENAME, name, data=new.encode() + b"\0")
        except OSError as error:
            if error.errno == errno.ENXIO:
                raise MissingError(f"there is no device {name}") from error
            if error.errno == errno.EBUSY:
                raise ConflictError(f"a device {new} exists already") from error
            raise ToolError(f"device {name} cannot be renamed: {error.strerror}") from error

    def table(self, name: str) -> Table:
        """Return the table of a device with exactly one line. Raises: ToolError."""
        return self._status(name, _WANT_TABLE)

    def status(self, name: str) -> str:
        """Return what the only target of a device says of itself. Raises: ToolError."""
        return self._status(name, 0).parameters

    def _status(self, name: str, flags: int) -> Table:
        try:
            _, count, data = self._call(_TABLE_STATUS, name, flags=flags)
        except OSError as error:
            raise ToolError(f"device {name}: {error.strerror}") from error
        if count != 1:
            raise ToolError(f"device {name} has {count} targets, not one")
        return _decode(data)

    def _call(
        self,
        command: int,
        name: str,
        *,
        uuid: str = "",
        flags: int = 0,
        count: int = 0,
        data: bytes = b"",
    ) -> tuple[int, int, bytes]:
        """Run one ioctl; return device number, number of targets, what follows the header.

        Raises: OSError.
        """
        if not 0 < len(name.encode()) <= _NAME or len(uuid.encode()) > _UUID:
            raise ToolError(f"{name!r:.150} cannot be the name of a device")
        size = max(_BUFFER, _HEADER.size + len(data))
        header = _HEADER.pack(
            4, 0, 0, size, _HEADER.size, count, 0, flags, 0, 0, name.encode(), uuid.encode()
        )
        buffer = bytearray((header + data).ljust(size, b"\0"))
        request = 3 << 30 | _HEADER.size << 16 | 0xFD << 8 | command
        fcntl.ioctl(self._descriptor, request, buffer)
        answer = _HEADER.unpack_from(buffer)
        return answer[9], answer[5], bytes(buffer[answer[4] : answer[3]])


@contextmanager
def opened(control: Path = CONTROL) -> Iterator[DeviceMapper]:
    """Open the device mapper. Raises: MissingError when the kernel has none, ToolError."""
    try:
        descriptor = os.open(control, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENODEV}:
            raise MissingError(f"this kernel has no device mapper ({control})") from error
        raise ToolError(f"{control}: {error.strerror}") from error
    try:
        yield DeviceMapper(descriptor)
    finally:
        os.close(descriptor)


def _encode(table: Table) -> bytes:
    text = table.parameters.encode() + b"\0"
    text += bytes(-len(text) % 8)
    return _TARGET.pack(0, table.size // SECTOR, 0, 0, table.target.encode()) + text


def _decode(data: bytes) -> Table:
    start, length, _, _, target = _TARGET.unpack_from(data)
    if start != 0:
        raise ToolError(f"a table that starts at sector {start} is not ours")
    text = data[_TARGET.size :].partition(b"\0")[0]
    kind = target.partition(b"\0")[0].decode("ascii", "replace")
    return Table(kind, length * SECTOR, text.decode("utf-8", "replace"))


def _node(device: int) -> Path:
    # dm_ioctl.dev has the kernel's "huge" encoding of a device number.
    minor = device & 0xFF | device >> 12 & 0xFFF00
    return Path(f"/dev/dm-{minor}")
