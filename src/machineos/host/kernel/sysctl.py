"""Parameters of the kernel by name (sysctl.d(5)). Standard library only: the initrd uses it."""

from __future__ import annotations

import os
from pathlib import Path

from machineos.errors import ToolError

PROC = Path("/proc")


def write(name: str, value: str, *, proc: Path = PROC) -> None:
    """Set the parameter ``name`` (with dots). Raises: ToolError (missing, or refused)."""
    path = proc / "sys" / name.replace(".", "/")
    try:
        # Opened, not made: one that the kernel does not have is missing in a folder of a test, too.
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            file.write(value.encode("ascii"))
    except OSError as error:
        raise ToolError(
            f"kernel parameter {name}: {value!r} cannot be set: {error.strerror}"
        ) from error
