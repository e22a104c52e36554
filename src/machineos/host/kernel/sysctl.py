"""Parameters of the kernel by name (sysctl.d(5)). Standard library only: the initrd uses it.

A name is written with slashes: one of its parts may be that of a network link, which may have dots.
"""

from __future__ import annotations

import os
from pathlib import Path

from machineos.errors import MissingError, ToolError

PROC = Path("/proc")


def write(name: str, value: str, *, proc: Path = PROC) -> None:
    """Set a parameter. Raises: MissingError (this kernel does not have it), ToolError (refused)."""
    path = proc / "sys" / name
    try:
        # Opened, not made: one that the kernel does not have is missing in a folder of a test, too.
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            file.write(value.encode("ascii"))
    except FileNotFoundError as error:
        raise MissingError(f"kernel parameter {name} does not exist") from error
    except OSError as error:
        message = f"kernel parameter {name}: {value!r} cannot be set: {error.strerror}"
        raise ToolError(message) from error
