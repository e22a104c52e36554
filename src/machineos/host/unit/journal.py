"""The folder of systemd-journald's files (systemd-journald.service(8), journald.conf(5)).

journald goes on writing to the file that it finds there under the name of a journal in use. One
that was set aside has the name that journald gives to what it does not trust: it reads nothing of
it, counts it, and removes it when room is needed; ``journalctl`` shows it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_IN_USE = ".journal"
_ARCHIVED = "@"


def aside(name: str, moment: int, number: bytes) -> str | None:
    """Return the name of a journal that was set aside at ``moment`` (microseconds of the wall
    clock); ``number`` are 8 random bytes. None for what journald would not go on writing to."""
    if not name.endswith(_IN_USE) or _ARCHIVED in name:
        return None
    return f"{name.removesuffix(_IN_USE)[:128]}@{moment:016x}-{number.hex()}{_IN_USE}~"


def set_aside(folder: Path) -> None:
    """Set aside every journal in the folders of ``folder``, which may have been written by anybody:
    nothing is opened, and no link is followed. Raises: OSError."""
    for machine in tuple(folder.iterdir()):
        if machine.is_symlink() or not machine.is_dir():
            continue
        for path in tuple(machine.iterdir()):
            new = aside(path.name, time.time_ns() // 1000, os.urandom(8))
            if new is not None:
                path.rename(path.with_name(new))
