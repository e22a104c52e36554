"""Kernel modules and power, by system call: the initrd has no kmod and no shutdown program.

Shared with the initrd: standard library only. Module files must be uncompressed; their signature is
checked by the kernel (lockdown refuses unsigned ones).
"""

from __future__ import annotations

import ctypes
import errno
import os
from enum import IntEnum
from pathlib import Path

from machineos.errors import MissingError, ToolError

_FINIT_MODULE = {"x86_64": 313, "aarch64": 273}


class Power(IntEnum):
    """The commands of reboot(2) that we use."""

    RESTART = 0x01234567
    OFF = 0x4321FEDC
    HALT = 0xCDEF0123


def load_module(path: Path, *, options: str = "") -> bool:
    """Load one kernel module; return False when it is loaded already.

    Raises: MissingError, ToolError (refused by the kernel; the message has the errno name).
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise MissingError(f"kernel module {path} does not exist") from error
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        number = _FINIT_MODULE[os.uname().machine]
        if libc.syscall(number, descriptor, options.encode(), 0) == 0:
            return True
        code = ctypes.get_errno()
    finally:
        os.close(descriptor)
    if code == errno.EEXIST:
        return False
    raise ToolError(f"kernel module {path.name}: {errno.errorcode.get(code, code)}")


def power(action: Power) -> None:
    """Restart, power off or halt now. Raises: ToolError when the kernel refuses."""
    os.sync()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.reboot(int(action)) != 0:
        code = ctypes.get_errno()
        raise ToolError(f"reboot({action.name}): {errno.errorcode.get(code, code)}")
