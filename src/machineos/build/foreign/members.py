"""Where the members of a tar archive lie in it: found once, by its headers, nothing unpacked.

Invariant: an ``Extent`` is within the file; a name leads to one member; links lead to members of
the same archive and nowhere else. Follows POSIX.1-2017 "pax Interchange Format".
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.build.recipe.archive import BLOCK, read_headers
from machineos.errors import ArchiveError, MissingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from machineos.build.recipe.member import Header

    ReadAt = Callable[[int, int], bytes]  # so many bytes from there on, fewer at the end

MAX_MEMBERS = 100_000
_MAX_NAMES = 16 << 20  # bytes of all names together
_MAX_LINKS = 8
_FILES = frozenset({b"0", b"\0", b"7"})
_HARDLINK, _SYMLINK = b"1", b"2"


@dataclass(frozen=True, slots=True)
class Extent:
    """A part of a file, in bytes."""

    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Members:
    """The files of an archive by name, and where its links lead."""

    what: str
    files: Mapping[str, Extent]
    links: Mapping[str, str]

    def find(self, name: str) -> Extent:
        """Return where the content of ``name`` is. Raises: MissingError, ArchiveError (a link that
        leads out of the archive, or in a circle)."""
        seen = inside(name)
        for _ in range(_MAX_LINKS):
            if seen is None:
                raise ArchiveError(f"{self.what}: {name[:200]!r} leads out of the archive")
            if seen in self.files:
                return self.files[seen]
            if seen not in self.links:
                raise MissingError(f"{self.what}: holds no file {name[:200]!r}")
            seen = inside(self.links[seen])
        raise ArchiveError(f"{self.what}: {name[:200]!r} is a link of too many links")


def index_members(read: ReadAt, end: int, *, what: str) -> Members:
    """Return the members of the archive that ``read`` reads, of ``end`` bytes; ``what`` names it.

    Raises: ArchiveError (damaged, cut off, too many members, a file that is there twice).
    """
    cursor = _Cursor(read)
    files: dict[str, Extent] = {}
    links: dict[str, str] = {}
    room = _MAX_NAMES
    for header in read_headers(cursor, what=what, members=MAX_MEMBERS):
        room -= len(header.name) + len(header.link)
        if room < 0:
            raise ArchiveError(f"{what}: has names of more than {_MAX_NAMES} bytes")
        _enter(header, cursor.position, files, links, what)
        if header.kind not in {_HARDLINK, _SYMLINK}:
            cursor.position += header.size + -header.size % BLOCK
            if header.size < 0 or cursor.position - (-header.size % BLOCK) > end:
                raise ArchiveError(f"{what}: {_text(header.name)[:200]!r} is cut off")
    return Members(what, files, links)


def inside(name: str) -> str | None:
    """Return ``name`` as seen from the root of the archive, None when it is not in there."""
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in {"", "."}:
            parts.append(part)
    return "/".join(parts)


def _enter(
    header: Header, start: int, files: dict[str, Extent], links: dict[str, str], what: str
) -> None:
    name = inside(_text(header.name))
    if name is None:
        raise ArchiveError(f"{what}: {_text(header.name)[:200]!r} leads out of the archive")
    if header.kind not in _FILES | {_HARDLINK, _SYMLINK}:
        return
    if name in files or name in links:
        raise ArchiveError(f"{what}: holds {name[:200]!r} twice")
    if header.kind in _FILES:
        files[name] = Extent(start, header.size)
    elif header.kind == _HARDLINK:
        links[name] = _text(header.link)
    else:
        links[name] = posixpath.join("/", posixpath.dirname(name), _text(header.link))


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


class _Cursor:
    """Reads from ``position`` on."""

    def __init__(self, read: ReadAt) -> None:
        self._read = read
        self.position = 0

    def read(self, size: int) -> bytes:
        data = self._read(size, self.position)
        self.position += len(data)
        return data
