"""Tar archives of any origin, read member by member and vetted before anything is done with them.

Owns the reader: POSIX ustar, pax and the GNU long names, as a stream, every size bounded. Nothing
here touches a file system; what a member may be is decided in ``member``. Follows POSIX.1-2017
"pax Interchange Format".
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from machineos.build.recipe.member import (
    Header,
    Kind,
    Limits,
    Member,
    Policy,
    encode,
    from_overlay,
    refusal,
    sparse,
    vet,
)
from machineos.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BLOCK = 512
_MAX_EXTENSION = 1 << 20
_MAX_OCTAL = 8**11
_CHUNK = 1 << 18
_XATTR = "SCHILY.xattr."
_IGNORED_KEYS = frozenset(
    {"atime", "ctime", "comment", "uname", "gname", "hdrcharset", "charset", "SCHILY.dev"}
    | {"SCHILY.ino", "SCHILY.nlink", "SCHILY.fflags", "LIBARCHIVE.creationtime"}
)


class Stream:
    """A byte stream read in exact amounts; ``limit`` bounds what may come out of it in all."""

    def __init__(self, chunks: Iterable[bytes], *, limit: int, what: str) -> None:
        self._chunks = iter(chunks)
        self._buffer = memoryview(b"")
        self._limit = limit
        self._what = what
        self.seen = 0

    def read(self, size: int) -> bytes:
        """Return exactly ``size`` bytes, fewer only at the end."""
        if len(self._buffer) >= size:
            data, self._buffer = self._buffer[:size].tobytes(), self._buffer[size:]
            return data
        return b"".join(self.pieces(size))

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Yield exactly ``size`` bytes in pieces, fewer only at the end."""
        while size > 0:
            if not self._buffer:
                chunk = next(self._chunks, None)
                if chunk is None:
                    return
                self.seen += len(chunk)
                if self.seen > self._limit:
                    raise ArchiveError(
                        f"{self._what}: expands to more than {self._limit} bytes",
                        hint="raise the limit if you trust where it comes from",
                    )
                self._buffer = memoryview(chunk)
            piece, self._buffer = self._buffer[:size], self._buffer[size:]
            size -= len(piece)
            yield piece


class Reads(Protocol):
    """What headers are read from."""

    def read(self, size: int) -> bytes:
        """Return exactly ``size`` bytes, fewer only at the end."""
        ...


def read_headers(stream: Reads, *, what: str, members: int) -> Iterator[Header]:
    """Yield the header of each member, extensions applied, nothing vetted; who asks for the next
    one has moved ``stream`` past the content. Raises: ArchiveError, also for over ``members``.
    """
    reader = _Reader(stream, what)
    count = 0
    while (header := reader.next_header()) is not None:
        count += 1
        if count > members:
            raise ArchiveError(f"{what}: has more than {members} members")
        yield header


def read_members(
    stream: Stream, *, what: str, limits: Limits, policy: Policy, overlay: bool = False
) -> Iterator[tuple[Member, Iterator[memoryview]]]:
    """Yield each member with the pieces of its content, in the order of the archive.

    The stream is read to its end, so that a digest over it gets checked. ``what`` names the
    archive; ``overlay``: its whiteouts are those of overlayfs. Raises: ArchiveError.
    """
    for header in read_headers(stream, what=what, members=limits.members):
        opaque = overlay and from_overlay(header)
        member = vet(header, what, policy)
        body = _body(stream, member, what)
        yield member, body
        for _rest in body:
            pass
        if opaque:
            yield replace(member, kind=Kind.OPAQUE), iter(())
        stream.read(-member.size % BLOCK)
    _finish(stream, what)


def _body(stream: Stream, member: Member, what: str) -> Iterator[memoryview]:
    left = member.size
    for piece in stream.pieces(member.size):
        left -= len(piece)
        yield piece
    if left:
        raise refusal(what, encode(member.name), "is cut off")


def _finish(stream: Stream, what: str) -> None:
    """Read the rest. It may hold only zeros: another reader could see members there."""
    while data := stream.read(_CHUNK):
        if data.count(0) != len(data):
            raise refusal(what, b"", "holds data behind its end mark")


class _Reader:
    def __init__(self, stream: Reads, what: str) -> None:
        self._stream = stream
        self._what = what

    def error(self, message: str, name: bytes = b"") -> ArchiveError:
        return refusal(self._what, name, message)

    def next_header(self) -> Header | None:
        """Return the next member's fields, None at the end mark."""
        pax: dict[str, bytes] = {}
        long: dict[bytes, bytes] = {}
        while (block := self._block()) is not None:
            header = self._parse(block)
            if header.kind == b"x":
                if pax:
                    raise self.error("has two extended headers for one member", header.name)
                pax = self._pax(self._extension(header), header.name)
            elif header.kind == b"g":
                self._check_global(self._pax(self._extension(header), header.name))
            elif header.kind in {b"L", b"K"}:
                long[header.kind] = self._extension(header).rstrip(b"\0")
            else:
                header.name = long.get(b"L") or header.name
                header.link = long.get(b"K") or header.link
                self._apply(header, pax)
                return header
        if pax or any(long.values()):
            raise self.error("ends after an extended header without its member")
        return None

    def _block(self) -> bytes | None:
        """Return the next header, None at the end: its mark, or that nothing more comes. That
        nothing is missing is for the digests of the whole to say, and not for the mark."""
        block = self._stream.read(BLOCK)
        if block and len(block) < BLOCK:
            raise self.error("ends within a header: it is cut off")
        return block if any(block) else None

    def _parse(self, block: bytes) -> Header:
        stored = self._number(block[148:156], "checksum")
        if stored != sum(block[:148]) + sum(block[156:]) + 8 * 32:
            raise self.error("has a header with a wrong checksum: damaged, or not a tar archive")
        name = block[:100].split(b"\0", 1)[0]
        if block[257:263] == b"ustar\0":
            prefix = block[345:500].split(b"\0", 1)[0]
            name = prefix + b"/" + name if prefix else name
        return Header(
            name=name,
            kind=block[156:157],
            mode=self._number(block[100:108], "mode", name),
            uid=self._number(block[108:116], "uid", name),
            gid=self._number(block[116:124], "gid", name),
            size=self._number(block[124:136], "size", name),
            mtime=self._number(block[136:148], "time", name),
            link=block[157:257].split(b"\0", 1)[0],
            xattrs={},
            device=block[329:345].strip(b"0 \0") != b"",
        )

    def _number(self, raw: bytes, what: str, name: bytes = b"") -> int:
        if raw[0] in {0x80, 0xFF}:  # GNU: the rest is the number, in two's complement
            return (
                int.from_bytes(raw, "big", signed=True)
                if raw[0] & 0x40
                else int.from_bytes(raw[1:], "big")
            )
        text = raw.rstrip(b"\0 ").lstrip(b" ")
        if raw[0] & 0x80 or not all(48 <= digit < 56 for digit in text):
            raise self.error(f"has a {what} that is not a number", name)
        return int(text, 8) if text else 0

    def _extension(self, header: Header) -> bytes:
        if header.size > _MAX_EXTENSION:
            raise self.error(f"has an extended header of {header.size} bytes", header.name)
        data = self._stream.read(header.size)
        if len(data) < header.size:
            raise self.error("ends within an extended header: it is cut off")
        self._stream.read(-header.size % BLOCK)
        return data

    def _pax(self, data: bytes, name: bytes) -> dict[str, bytes]:
        records: dict[str, bytes] = {}
        position = 0
        while position < len(data):
            space = data.find(b" ", position, position + 9)
            digits = data[position:space]
            if space < 0 or not digits.isdigit():
                raise self.error("has an extended header that cannot be read", name)
            end = position + int(digits)
            record = data[space + 1 : end]
            key, equals, value = record.partition(b"=")
            if end > len(data) or not record.endswith(b"\n") or not equals or not key:
                raise self.error("has an extended header that cannot be read", name)
            text = key.decode("utf-8", "replace")
            if text in records:
                raise self.error(f"gives {text[:60]!r} twice in one extended header", name)
            records[text] = value[:-1]
            position = end
        return records

    def _check_global(self, records: dict[str, bytes]) -> None:
        for key in records:
            if key not in _IGNORED_KEYS:
                raise self.error(f"sets {key[:60]!r} for all its members")

    def _apply(self, header: Header, pax: dict[str, bytes]) -> None:
        header.name = pax.get("path", header.name)
        header.link = pax.get("linkpath", header.link)
        header.uid = self._decimal(pax, "uid", header.uid, header.name)
        header.gid = self._decimal(pax, "gid", header.gid, header.name)
        header.mtime = self._decimal(pax, "mtime", header.mtime, header.name)
        size = self._decimal(pax, "size", header.size, header.name)
        # Two readers that believe different sizes see different members (CVE-2025-62518), so only a
        # size that the old field cannot hold may differ from it.
        if size != header.size and size < _MAX_OCTAL:
            raise self.error(f"has two sizes: {header.size} and {size}", header.name)
        header.size = size
        for key, value in pax.items():
            if key.startswith(_XATTR):
                header.xattrs[key.removeprefix(_XATTR)] = value
            elif key.startswith("GNU.sparse"):
                raise sparse(self._what, header.name)
            elif key.startswith("SCHILY.acl"):
                message, hint = "has an access control list", "remove it: setfacl -b FILE"
                raise refusal(self._what, header.name, message, hint=hint)

    def _decimal(self, pax: dict[str, bytes], key: str, default: int, name: bytes) -> int:
        if key not in pax:
            return default
        whole, _, fraction = pax[key].partition(b".")
        digits = whole.removeprefix(b"-") if key == "mtime" else whole
        fraction_allowed = key == "mtime" and (fraction.isdigit() or not fraction)
        if not digits.isdigit() or len(digits) > 18 or (fraction and not fraction_allowed):
            raise self.error(f"has a {key} that is not a number", name)
        return int(whole)
