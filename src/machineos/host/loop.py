"""Loop devices by ioctl (loop(4)): a file that the kernel reads as a read-only block device.

Shared with the initrd: standard library only. A device gives itself up when its last user is gone
(LO_FLAGS_AUTOCLEAR), so a crash leaves none behind.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.errors import MissingError, ToolError

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTROL = Path("/dev/loop-control")
_CONFIGURE, _CTL_GET_FREE = 0x4C0A, 0x4C82
_READ_ONLY, _AUTOCLEAR = 1, 4
# struct loop_config: fd, block_size, struct loop_info64 with only lo_flags set, reserved
_CONFIG = struct.Struct("<II 40x 12x I 64x 64x 32x 16x 64x")
_TRIES = 16


@contextmanager
def attached(image: Path, *, control: Path = CONTROL) -> Iterator[tuple[Path, str]]:
    """Yield the device (path, ``major:minor``) that shows the regular file ``image``.

    It stays until the block has ended and nobody else (a device-mapper table) has it open.
    Raises: MissingError (no image, no loop driver), ToolError.
    """
    source = _open(image)
    try:
        if not stat.S_ISREG(os.fstat(source).st_mode):
            raise ToolError(f"{image}: is not a regular file")
        device, path = _configure(source, image, control)
    finally:
        os.close(source)
    try:
        number = os.fstat(device).st_rdev
        yield path, f"{os.major(number)}:{os.minor(number)}"
    finally:
        os.close(device)


def _configure(source: int, image: Path, control: Path) -> tuple[int, Path]:
    """Return an open loop device over ``source``; another program may take the free one first."""
    request = _CONFIG.pack(source, 0, _READ_ONLY | _AUTOCLEAR)
    controller = _open(control, os.O_RDWR)
    try:
        for _ in range(_TRIES):
            path = control.with_name(f"loop{fcntl.ioctl(controller, _CTL_GET_FREE)}")
            device = _open(path)
            try:
                fcntl.ioctl(device, _CONFIGURE, request)
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:
                    raise
            else:
                return device, path
    except OSError as error:
        raise ToolError(f"{image}: no loop device: {error.strerror}") from error
    finally:
        os.close(controller)
    raise ToolError(f"{image}: no loop device stayed free in {_TRIES} tries")


def _open(path: Path, flags: int = os.O_RDONLY) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise MissingError(f"{path} does not exist") from error
    except OSError as error:
        raise ToolError(f"{path}: {error.strerror}") from error
