"""The flags of mount(2), apart from what mounts, so that a plan can name them."""

from __future__ import annotations

from enum import IntFlag


class Flag(IntFlag):
    """Flags of mount(2), with the kernel's values."""

    NONE = 0
    RDONLY = 1
    NOSUID = 2
    NODEV = 4
    NOEXEC = 8
    REMOUNT = 32
    NOSYMFOLLOW = 256
    NOATIME = 1024
    BIND = 4096
    MOVE = 8192
    REC = 16384
    PRIVATE = 1 << 18
    SLAVE = 1 << 19
    SHARED = 1 << 20
