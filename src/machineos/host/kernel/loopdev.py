"""Loop devices by ioctl, on an open file.

The file is handed over as a descriptor, so what was opened (and checked) is what the device shows:
no path is looked up twice. Devices free themselves when their last user closes them (autoclear), so
a crash leaves none behind. Shared with the initrd: standard library only. Follows loop(4).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from machineos.errors import ToolError

_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_READ_ONLY = 1
_AUTOCLEAR = 4
# struct loop_config: fd, block size, then struct loop_info64, then 64 reserved bytes.
_CONFIG = struct.Struct("=II QQQQQ IIII 64s64s32s QQ 64x")
_ATTEMPTS = 64


@dataclass(slots=True)
class LoopDevice:
    """A configured loop device, kept alive by ``fd`` until ``close`` or until others hold it."""

    path: Path
    fd: int

    def close(self) -> None:
        """Let go: the kernel frees the device once nothing else (dm, a mount) uses it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> LoopDevice:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()


def attach(
    file_fd: int,
    *,
    read_only: bool = True,
    offset: int = 0,
    size: int = 0,
    label: str = "",
) -> LoopDevice:
    """Show the open file ``file_fd`` as a block device.

    ``offset`` and ``size`` are in bytes (size 0: to the end); ``label`` is what losetup shows.
    Raises: ToolError.
    """
    flags = _AUTOCLEAR | (_READ_ONLY if read_only else 0)
    config = pack_config(file_fd, offset=offset, size=size, flags=flags, label=label)
    mode = (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC
    try:
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        try:
            return _first_free(control, config, mode)
        finally:
            os.close(control)
    except OSError as error:
        raise ToolError(
            f"loop device for {label or 'a file'}: {error.strerror}",
            hint="is the kernel module loop loaded?",
        ) from error


def pack_config(fd: int, *, offset: int, size: int, flags: int, label: str) -> bytes:
    """Return struct loop_config of loop(4)."""
    name = label.encode("utf-8", "replace")[:63]
    return _CONFIG.pack(fd, 0, 0, 0, 0, offset, size, 0, 0, 0, flags, name, b"", b"", 0, 0)


def _first_free(control: int, config: bytes, mode: int) -> LoopDevice:
    """Take a free device. Others take devices too, so a busy one means: ask again."""
    for _attempt in range(_ATTEMPTS):
        path = Path(f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}")
        device = os.open(path, mode)
        try:
            fcntl.ioctl(device, _LOOP_CONFIGURE, config)
        except OSError as error:
            os.close(device)
            if error.errno != errno.EBUSY:
                raise
        else:
            return LoopDevice(path, device)
    raise ToolError(f"no loop device was free in {_ATTEMPTS} attempts")
