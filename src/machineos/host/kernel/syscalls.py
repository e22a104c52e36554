"""Modules, capabilities and power, by system call: the initrd has no kmod and no shutdown program.

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
_CAPBSET_DROP = 24
MAC_ADMIN = 33  # CAP_MAC_ADMIN: who has it may switch IPE off
HELPERS = Path("/proc/sys/kernel/usermodehelper")


class Power(IntEnum):
    """The commands of reboot(2) that we use."""

    RESTART = 0x01234567
    OFF = 0x4321FEDC


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


def drop_capability(number: int, *, helpers: Path = HELPERS) -> None:
    """Take a capability away from everything that is started from now on, root or not: from this
    process and its children when they execute a program, and from the programs that the kernel
    itself starts (core dumps, module loading). Nothing gives it back before a reboot.

    Raises: ToolError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        for name in ("bset", "inheritable"):
            low, high = (int(word) for word in (helpers / name).read_text().split())
            left = (high << 32 | low) & ~(1 << number)
            (helpers / name).write_text(f"{left & 0xFFFFFFFF} {left >> 32}\n")
    except OSError as error:
        raise ToolError(f"capability {number}: {error.filename}: {error.strerror}") from error
    if libc.prctl(_CAPBSET_DROP, number, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise ToolError(f"capability {number}: prctl: {errno.errorcode.get(code, code)}")
