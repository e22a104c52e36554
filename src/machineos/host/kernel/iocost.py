"""io.cost, the kernel's controller that shares a disk by weights (cgroup v2, "IO" section).

It is off until it is told, disk by disk, and then goes by the kernel's own model of such a disk:
nobody waits for his share as long as the disk has time for all.
"""

from __future__ import annotations

import os
from pathlib import Path

from machineos.errors import MissingError, ToolError

SYS = Path("/sys")


def share(path: Path, *, sys: Path = SYS) -> None:
    """Let the disk that holds the file system of ``path`` be shared by weights from now on.

    Raises: MissingError (no such disk, or a kernel without it), ToolError (refused).
    """
    number = _disk_of(path.stat().st_dev, sys)
    if number is None:
        raise MissingError(f"{path} is on no disk that could be shared by weights")
    file = sys / "fs/cgroup/io.cost.qos"
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "wb", buffering=0) as opened:
            opened.write(f"{number} enable=1".encode("ascii"))
    except FileNotFoundError as error:
        raise MissingError(f"{file} does not exist: this kernel has no io.cost") from error
    except OSError as error:
        message = f"disk {number} cannot be shared by weights: {error.strerror}"
        raise ToolError(message) from error


def _disk_of(device: int, sys: Path) -> str | None:
    """Return the number of the disk that ``device`` is or is a partition of, as the kernel
    writes it; None for what is on none."""
    where = sys / f"dev/block/{os.major(device)}:{os.minor(device)}"
    if not where.exists():
        return None
    found = where.resolve()
    disk = found.parent if (found / "partition").exists() else found
    return (disk / "dev").read_text("ascii").strip()
