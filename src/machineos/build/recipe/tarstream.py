"""A tar stream of our own for a program that packs it, the contents taken from a spool file.

Only what ``archive.py`` lets through is ever written: relative names, no devices. POSIX.1-2017
"pax Interchange Format" where there are extended attributes, GNU's long names otherwise.
"""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_TIME: Final = (1 << 32) - 1  # what a squashfs can hold
_BLOCK = tarfile.BLOCKSIZE
_BUFFER = 1 << 20
_SMALL = 128 << 10
_XATTR = "SCHILY.xattr."


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a file besides its name and content. ``mtime`` in seconds."""

    mode: int
    uid: int
    gid: int
    mtime: int
    xattrs: Mapping[str, bytes]


class TarWriter:
    """Writes members to the descriptor ``output``; the file ``spool`` holds the contents.

    Times after ``MAX_TIME`` become that. Raises: OSError, BrokenPipeError when the reader has gone.
    """

    def __init__(self, output: int, spool: int) -> None:
        self._output = output
        self._spool = spool
        self._buffer = bytearray()

    def folder(self, name: str, facts: Facts) -> None:
        """Write a folder; what is in it follows."""
        self._header(name, facts, tarfile.DIRTYPE)

    def symlink(self, name: str, facts: Facts, target: str) -> None:
        """Write a symbolic link, which has no extended attributes."""
        bare = Facts(facts.mode, facts.uid, facts.gid, facts.mtime, {})
        self._header(name, bare, tarfile.SYMTYPE, link=target)

    def hardlink(self, name: str, facts: Facts, first: str) -> None:
        """Write another name of the file that was written as ``first``."""
        self._header(name, facts, tarfile.LNKTYPE, link=first)

    def file(self, name: str, facts: Facts, start: int, size: int) -> None:
        """Write a file whose ``size`` bytes begin at ``start`` of the spool.

        Raises: EOFError when the spool is shorter.
        """
        self._header(name, facts, tarfile.REGTYPE, size=size)
        if size <= _SMALL:
            data = os.pread(self._spool, size, start)
            if len(data) != size:
                raise EOFError(_SHORT)
            self._buffer += data
        else:
            self._flush()
            copy(self._spool, start, size, self._output)
        self._buffer += bytes(-size % _BLOCK)

    def finish(self) -> None:
        """Write the end mark."""
        self._buffer += bytes(2 * _BLOCK)
        self._flush()

    def _header(
        self, name: str, facts: Facts, kind: bytes, *, size: int = 0, link: str = ""
    ) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.size, info.linkname = kind, size, link
        info.mode, info.uid, info.gid = facts.mode, facts.uid, facts.gid
        info.mtime = min(facts.mtime, MAX_TIME)
        if facts.xattrs:
            info.pax_headers = {
                _XATTR + key: value.decode("utf-8", "surrogateescape")
                for key, value in facts.xattrs.items()
            }
        self._buffer += info.tobuf(
            tarfile.PAX_FORMAT if facts.xattrs else tarfile.GNU_FORMAT, "utf-8", "surrogateescape"
        )
        if len(self._buffer) >= _BUFFER:
            self._flush()

    def _flush(self) -> None:
        with memoryview(bytes(self._buffer)) as view:
            done = 0
            while done < len(view):
                done += os.write(self._output, view[done:])
        self._buffer.clear()


_SHORT = "the spool file ends before its last content does"


def copy(source: int, start: int, size: int, target: int) -> None:
    """Copy ``size`` bytes from ``start`` of the file ``source`` to ``target``, in the kernel.

    Raises: OSError, EOFError when the source is shorter.
    """
    while size:
        count = os.sendfile(target, source, start, size)
        if not count:
            raise EOFError(_SHORT)
        start, size = start + count, size - count
