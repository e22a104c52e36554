"""A tar stream of our own for a program that packs it, the contents taken from a spool file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from machineos.build.recipe.tarheader import END, header, padding

if TYPE_CHECKING:
    from machineos.build.recipe.tarheader import Facts

_BUFFER = 1 << 20
_SMALL = 128 << 10


class TarWriter:
    """Writes members to the descriptor ``output``; the file ``spool`` holds the contents.

    Raises: OSError, BrokenPipeError when the reader has gone.
    """

    def __init__(self, output: int, spool: int) -> None:
        self._output = output
        self._spool = spool
        self._buffer = bytearray()

    def folder(self, name: str, facts: Facts) -> None:
        """Write a folder; what is in it follows."""
        self._add(header("folder", name, facts))

    def symlink(self, name: str, facts: Facts, target: str) -> None:
        """Write a symbolic link, which has no extended attributes."""
        self._add(header("symlink", name, facts, link=target))

    def hardlink(self, name: str, facts: Facts, first: str) -> None:
        """Write another name of the file that was written as ``first``."""
        self._add(header("hardlink", name, facts, link=first))

    def file(self, name: str, facts: Facts, start: int, size: int) -> None:
        """Write a file whose ``size`` bytes begin at ``start`` of the spool.

        Raises: EOFError when the spool is shorter.
        """
        self._add(header("file", name, facts, size=size))
        if size <= _SMALL:
            data = os.pread(self._spool, size, start)
            if len(data) != size:
                raise EOFError(_SHORT)
            self._buffer += data
        else:
            self._flush()
            copy(self._spool, start, size, self._output)
        self._buffer += padding(size)

    def finish(self) -> None:
        """Write the end mark."""
        self._buffer += END
        self._flush()

    def _add(self, data: bytes) -> None:
        self._buffer += data
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
