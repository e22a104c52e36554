"""Whether a folder in memory can stand for one on a disk: it has room, attributes, direct reads."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile

NEEDED = 2 << 30


def fits(folder: str) -> bool:
    """Try it."""
    with contextlib.suppress(OSError), tempfile.NamedTemporaryFile(dir=folder) as file:
        os.setxattr(file.name, "user.try", b"x")
        os.close(os.open(file.name, os.O_RDONLY | os.O_DIRECT))
        left = os.statvfs(folder)
        return left.f_bavail * left.f_frsize >= NEEDED
    return False


if __name__ == "__main__":
    sys.exit(not fits(sys.argv[1]))
