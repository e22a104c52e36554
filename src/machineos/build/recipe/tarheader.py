"""The headers of a tar archive of our own, one member at a time.

Only what ``member`` lets through is ever written: relative names, no devices. POSIX.1-2017 "pax
Interchange Format" where there are extended attributes, GNU's long names otherwise.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Type = Literal["file", "folder", "symlink", "hardlink"]

BLOCK: Final = tarfile.BLOCKSIZE
MAX_TIME: Final = (1 << 32) - 1  # what a squashfs can hold
END: Final = bytes(2 * BLOCK)
_XATTR = "SCHILY.xattr."
_TYPES: Mapping[Type, bytes] = {
    "file": tarfile.REGTYPE,
    "folder": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a file besides its name and content. ``mtime`` in seconds."""

    mode: int
    uid: int
    gid: int
    mtime: int
    xattrs: Mapping[str, bytes]


def header(kind: Type, name: str, facts: Facts, *, size: int = 0, link: str = "") -> bytes:
    """Return the header of one member; ``link`` is a symbolic link's target or a hard link's first
    name. Times after ``MAX_TIME`` become that; a symbolic link has no extended attributes."""
    if kind == "symlink":
        facts = replace(facts, xattrs={})
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = _TYPES[kind], size, link
    info.mode, info.uid, info.gid = facts.mode, facts.uid, facts.gid
    info.mtime = min(facts.mtime, MAX_TIME)
    info.pax_headers = {
        _XATTR + key: value.decode("utf-8", "surrogateescape")
        for key, value in facts.xattrs.items()
    }
    if facts.xattrs:
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def padding(size: int) -> bytes:
    """Return what follows a content of ``size`` bytes."""
    return bytes(-size % BLOCK)
