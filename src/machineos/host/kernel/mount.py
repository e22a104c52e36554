"""Mounts by system call: mount(2), umount2(2), open_tree(2), mount_setattr(2), move_mount(2).

The initrd and the appliance have no ``mount`` program and need none. Every mount here says its
whole set of flags, a read-only bind mount is read-only from the first moment it can be seen (the
clone is made detached, changed, and only then attached), and unmounting never follows a symbolic
link. Shared with the initrd: standard library only.
"""

from __future__ import annotations

import ctypes
import os
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from machineos.errors import MissingError, ToolError
from machineos.host.kernel.flags import Flag as Flag  # whoever mounts finds them here too

if TYPE_CHECKING:
    from collections.abc import Iterator

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 4
_MNT_DETACH = 2
_UMOUNT_NOFOLLOW = 8
_ATTR_RDONLY = 0x1
_ATTR_NOSUID = 0x2
_ATTR_NODEV = 0x4
_ATTR_IDMAP = 0x100000

# mountinfo(5) writes space, tab, newline and backslash as three octal digits.
_OCTAL = re.compile(r"\\([0-7]{3})")


class _MountAttr(ctypes.Structure):
    """struct mount_attr of mount_setattr(2)."""

    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


class Mount(msgspec.Struct, frozen=True):
    """One line of mountinfo(5): where, what kind, from what."""

    device: str
    root: str
    target: Path
    options: tuple[str, ...]
    fstype: str
    source: str

    @property
    def read_only(self) -> bool:
        """Whether this mount, whatever its file system allows, is read-only."""
        return "ro" in self.options


def mount(
    source: str | os.PathLike[str],
    target: Path,
    fstype: str,
    flags: Flag = Flag.NONE,
    data: str = "",
) -> None:
    """Attach a file system of type ``fstype`` at the existing path ``target``.

    ``data`` is the comma-separated list of the file system's own options.
    Raises: MissingError (no such source or target), ToolError (the kernel refused).
    """
    name = os.fspath(source)
    result = _libc().mount(
        os.fsencode(name),
        os.fsencode(target),
        fstype.encode() if fstype else None,
        ctypes.c_ulong(flags),
        data.encode() if data else None,
    )
    _check(result, f"mount {fstype or flags.name} {name} at {target}")


def unmount(target: Path, *, lazy: bool = False) -> None:
    """Detach what is mounted at ``target``; ``lazy`` hides it now and frees it when unused.

    A symbolic link at ``target`` is refused. Raises: MissingError, ToolError (busy, not mounted).
    """
    flags = _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0)
    _check(_libc().umount2(os.fsencode(target), flags), f"unmount {target}")


def bind(source: Path, target: Path, *, read_only: bool, recursive: bool = False) -> None:
    """Show ``source`` also at ``target``, without setuid and device files.

    Raises: MissingError, ToolError.
    """
    with _cloned(source, recursive=recursive) as tree:
        attributes = _ATTR_NOSUID | _ATTR_NODEV | (_ATTR_RDONLY if read_only else 0)
        _set_attributes(tree.fd, attributes, what=f"bind {source}", recursive=recursive)
        _attach(tree.fd, target, what=f"bind {source}")


def move(source: Path, target: Path) -> None:
    """Move the mount at ``source`` to ``target``. Raises: MissingError, ToolError."""
    mount(source, target, "", Flag.MOVE)


def clone_idmapped(source: Path, target: Path, userns_fd: int, *, read_only: bool) -> None:
    """Show the mount at ``source`` at ``target`` with owners shifted by a user namespace.

    ``userns_fd`` is an open user namespace whose map says which host ids the ids of the file system
    become; nothing is copied. Setuid and device files do not work in the clone. Clones of squashfs
    need Linux 6.2, of EROFS 5.19. Raises: MissingError, ToolError.
    """
    with _cloned(source, recursive=False) as tree:
        attributes = _ATTR_IDMAP | _ATTR_NOSUID | _ATTR_NODEV | (_ATTR_RDONLY if read_only else 0)
        what = f"id-mapped clone of {source}"
        _set_attributes(tree.fd, attributes, what=what, userns_fd=userns_fd)
        _attach(tree.fd, target, what=what)


def mounts(mountinfo: Path = Path("/proc/self/mountinfo")) -> tuple[Mount, ...]:
    """Return the mounts of this mount namespace, oldest first."""
    return parse_mountinfo(mountinfo.read_text("utf-8", "surrogateescape"))


def parse_mountinfo(text: str) -> tuple[Mount, ...]:
    """Parse mountinfo(5). Raises: ToolError for a line of another shape."""
    return tuple(_parse_lines(text))


def is_mounted(target: Path, table: tuple[Mount, ...] | None = None) -> bool:
    """Whether something is mounted exactly at ``target``."""
    return any(entry.target == target for entry in (mounts() if table is None else table))


def _parse_lines(text: str) -> Iterator[Mount]:
    for line in text.splitlines():
        left, dash, right = line.partition(" - ")
        fields, tail = left.split(" "), right.split(" ")
        if not dash or len(fields) < 6 or len(tail) < 2:
            raise ToolError(f"mountinfo: cannot read the line {line[:120]!r}")
        yield Mount(
            device=fields[2],
            root=_unescape(fields[3]),
            target=Path(_unescape(fields[4])),
            options=tuple(fields[5].split(",")),
            fstype=tail[0],
            source=_unescape(tail[1]),
        )


def _unescape(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


class _Tree:
    """A detached clone of a mount; it vanishes on close unless it was attached."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> _Tree:
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self.fd)


def _cloned(source: Path, *, recursive: bool) -> _Tree:
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    descriptor = _libc().open_tree(_AT_FDCWD, os.fsencode(source), ctypes.c_uint(flags))
    _check(descriptor, f"clone the mount {source}")
    return _Tree(descriptor)


def _set_attributes(
    fd: int, attributes: int, *, what: str, userns_fd: int = 0, recursive: bool = False
) -> None:
    attr = _MountAttr(attributes, 0, Flag.PRIVATE, userns_fd)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    size = ctypes.c_size_t(ctypes.sizeof(attr))
    _check(_libc().mount_setattr(fd, b"", ctypes.c_uint(flags), ctypes.byref(attr), size), what)


def _attach(fd: int, target: Path, *, what: str) -> None:
    flags = ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH)
    result = _libc().move_mount(fd, b"", _AT_FDCWD, os.fsencode(target), flags)
    _check(result, f"{what} at {target}")


def _check(result: int, what: str) -> None:
    if result >= 0:
        return
    error = OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if isinstance(error, FileNotFoundError):
        raise MissingError(f"{what}: {error.strerror}") from error
    raise ToolError(f"{what}: {error.strerror}") from error


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
