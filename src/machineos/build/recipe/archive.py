"""Tar archives of any origin, read member by member and vetted before anything is done with them.

Owns the reader: POSIX ustar, pax and the GNU long names, as a stream, every size bounded. Nothing
here touches a file system. Invariant: a ``Member`` that comes out has a relative name without
``..``, one unambiguous size, and is a file, a folder, a symbolic link, a hard link or a whiteout;
devices, FIFOs, sparse files and what the policy forbids are ``ArchiveError``, which names archive
and member. Follows POSIX.1-2017 "pax Interchange Format" and the OCI image specification, "Layer
Filesystem Changeset".
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Literal

from machineos.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

BLOCK = 512
MAX_NAME = 4095
MAX_COMPONENT = 255
MAX_DEPTH = 128
_MAX_EXTENSION = 1 << 20
_MAX_XATTRS = 64 << 10
_MAX_OCTAL = 8**11
_MAX_ID = (1 << 32) - 2
_CHUNK = 1 << 18
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_XATTR = "SCHILY.xattr."
_IGNORED_KEYS = frozenset(
    {"atime", "ctime", "comment", "uname", "gname", "hdrcharset", "charset", "SCHILY.dev"}
    | {"SCHILY.ino", "SCHILY.nlink", "SCHILY.fflags", "LIBARCHIVE.creationtime"}
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one image may expand to. All of it counts over all its layers."""

    expanded: int = 16 << 30
    members: int = 1_000_000


@dataclass(frozen=True, slots=True)
class Policy:
    """What happens to members that are legal but dangerous.

    ``setuid``: set-user-id and set-group-id bits of files. ``strip`` is the default for images of
    foreign origin: a service runs without new privileges, so the bits could only serve an attacker.
    """

    setuid: Literal["keep", "strip", "refuse"] = "strip"


class Kind(Enum):
    """What a member is."""

    FILE = "file"
    FOLDER = "folder"
    SYMLINK = "symbolic link"
    HARDLINK = "hard link"
    WHITEOUT = "whiteout"
    OPAQUE = "opaque whiteout"


@dataclass(frozen=True, slots=True)
class Member:
    """One vetted member. ``parts`` is its name, () for the root; for a whiteout the name that goes.

    ``target`` is the text of a symbolic link; ``link`` the parts of a hard link's other name.
    """

    kind: Kind
    parts: tuple[str, ...]
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int = 0
    target: str = ""
    link: tuple[str, ...] = ()
    xattrs: dict[str, bytes] = field(default_factory=dict)
    stripped: bool = False

    @property
    def name(self) -> str:
        """The name for messages."""
        return "/".join(self.parts) or "."


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


def read_members(
    stream: Stream, *, what: str, limits: Limits, policy: Policy
) -> Iterator[tuple[Member, Iterator[memoryview]]]:
    """Yield each member with the pieces of its content, in the order of the archive.

    The stream is read to its end, so that a digest over it gets checked. ``what`` names the
    archive. Raises: ArchiveError.
    """
    reader = _Reader(stream, what)
    count = 0
    while (header := reader.next_header()) is not None:
        count += 1
        if count > limits.members:
            raise ArchiveError(f"{what}: has more than {limits.members} members")
        member = _vet(header, what, policy)
        body = reader.body(member)
        yield member, body
        for _rest in body:
            pass
        reader.skip_padding(member)
    reader.finish()


@dataclass(slots=True)
class _Header:
    """The fields of one member, extensions applied, nothing vetted yet."""

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    link: bytes
    xattrs: dict[str, bytes]
    pax_size: int | None = None


class _Reader:
    def __init__(self, stream: Stream, what: str) -> None:
        self._stream = stream
        self._what = what

    def error(self, message: str, name: bytes = b"") -> ArchiveError:
        return _error(self._what, name, message)

    def next_header(self) -> _Header | None:
        pax: dict[str, bytes] = {}
        long_name = long_link = b""
        while True:
            block = self._stream.read(BLOCK)
            if not block:
                raise self.error("ends without the end mark: it is cut off")
            if len(block) < BLOCK:
                raise self.error("ends within a header: it is cut off")
            if not any(block):
                if pax or long_name or long_link:
                    raise self.error("ends after an extended header without its member")
                return None
            header = self._parse(block)
            if header.kind == b"x":
                if pax:
                    raise self.error("has two extended headers for one member", header.name)
                pax = self._pax(self._extension(header), header.name)
            elif header.kind == b"g":
                self._check_global(self._pax(self._extension(header), header.name))
            elif header.kind == b"L":
                long_name = self._extension(header).rstrip(b"\0")
            elif header.kind == b"K":
                long_link = self._extension(header).rstrip(b"\0")
            else:
                header.name = long_name or header.name
                header.link = long_link or header.link
                self._apply(header, pax)
                return header

    def body(self, member: Member) -> Iterator[memoryview]:
        left = member.size
        for piece in self._stream.pieces(member.size):
            left -= len(piece)
            yield piece
        if left:
            raise _error(self._what, os.fsencode(member.name), "is cut off")

    def skip_padding(self, member: Member) -> None:
        self._stream.read(-member.size % BLOCK)

    def finish(self) -> None:
        """Read the rest. It may hold only zeros: another reader could see members there."""
        while data := self._stream.read(_CHUNK):
            if data.count(0) != len(data):
                raise self.error("holds data behind its end mark")

    def _parse(self, block: bytes) -> _Header:
        stored = self._number(block[148:156], "checksum")
        if stored != sum(block[:148]) + sum(block[156:]) + 8 * 32:
            raise self.error("has a header with a wrong checksum: damaged, or not a tar archive")
        name = block[:100].split(b"\0", 1)[0]
        if block[257:263] == b"ustar\0":
            prefix = block[345:500].split(b"\0", 1)[0]
            name = prefix + b"/" + name if prefix else name
        return _Header(
            name=name,
            kind=block[156:157],
            mode=self._number(block[100:108], "mode", name),
            uid=self._number(block[108:116], "uid", name),
            gid=self._number(block[116:124], "gid", name),
            size=self._number(block[124:136], "size", name),
            mtime=self._number(block[136:148], "time", name),
            link=block[157:257].split(b"\0", 1)[0],
            xattrs={},
        )

    def _number(self, raw: bytes, what: str, name: bytes = b"") -> int:
        if raw[0] == 0x80:
            return int.from_bytes(raw[1:], "big")
        text = raw.rstrip(b"\0 ").lstrip(b" ")
        if raw[0] & 0x80 or not all(48 <= digit < 56 for digit in text):
            raise self.error(f"has a {what} that is not a number", name)
        return int(text, 8) if text else 0

    def _extension(self, header: _Header) -> bytes:
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

    def _apply(self, header: _Header, pax: dict[str, bytes]) -> None:
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
                raise self.error("is a sparse file", header.name)
            elif key.startswith("SCHILY.acl"):
                raise self.error("has an access control list", header.name)

    def _decimal(self, pax: dict[str, bytes], key: str, default: int, name: bytes) -> int:
        if key not in pax:
            return default
        whole, _, fraction = pax[key].partition(b".")
        digits = whole.removeprefix(b"-") if key == "mtime" else whole
        fraction_allowed = key == "mtime" and (fraction.isdigit() or not fraction)
        if not digits.isdigit() or len(digits) > 18 or (fraction and not fraction_allowed):
            raise self.error(f"has a {key} that is not a number", name)
        return int(whole)


_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"1": Kind.HARDLINK,
    b"2": Kind.SYMLINK,
    b"5": Kind.FOLDER,
}
_REFUSED = {
    b"3": "is a character device",
    b"4": "is a block device",
    b"6": "is a FIFO",
    b"S": "is a sparse file",
}


def folder_members(
    tree: Path, *, what: str, limits: Limits, policy: Policy
) -> Iterator[tuple[Member, Iterator[memoryview]]]:
    """Yield what is in the folder ``tree`` the way ``read_members`` does, vetted by the same rules.

    For layers that are file systems: whiteouts are overlayfs's there, a character device 0/0 and an
    attribute. ``tree`` must not change meanwhile. Raises: ArchiveError.
    """
    seen: dict[tuple[int, int], bytes] = {}
    left = limits.members
    pending = [(tree, b".")]
    while pending:
        path, name = pending.pop()
        left -= 1
        if left < 0:
            raise ArchiveError(f"{what}: has more than {limits.members} members")
        status = path.lstat()
        header, opaque = _folder_header(path, name, status, seen)
        member = _vet(header, what, policy)
        yield member, _contents(path) if member.kind is Kind.FILE else iter(())
        if opaque:
            yield replace(member, kind=Kind.OPAQUE), iter(())
        if member.kind is Kind.FOLDER:
            pending += sorted(
                ((child, name + b"/" + os.fsencode(child.name))) for child in path.iterdir()
            )[::-1]


def _folder_header(
    path: Path, name: bytes, status: os.stat_result, seen: dict[tuple[int, int], bytes]
) -> tuple[_Header, bool]:
    kinds = {stat.S_IFREG: b"0", stat.S_IFLNK: b"2", stat.S_IFDIR: b"5", stat.S_IFBLK: b"4"}
    kinds |= {stat.S_IFCHR: b"3", stat.S_IFIFO: b"6"}
    kind = kinds.get(stat.S_IFMT(status.st_mode), b"s")
    keys = os.listxattr(path, follow_symlinks=False)
    xattrs = {key: os.getxattr(path, key, follow_symlinks=False) for key in keys}
    opaque = {xattrs.pop(f"{space}.overlay.opaque", b"") for space in ("trusted", "user")}
    link = os.fsencode(path.readlink()) if kind == b"2" else b""
    if kind == b"0" and status.st_nlink > 1:
        first = seen.setdefault((status.st_dev, status.st_ino), name)
        if first != name:
            kind, link = b"1", first
    if kind == b"3" and status.st_rdev == 0:
        parent, _, last = name.rpartition(b"/")
        kind, name = b"0", parent + b"/" + os.fsencode(_WHITEOUT) + last
    header = _Header(
        name=name,
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if kind == b"0" else 0,
        mtime=int(status.st_mtime),
        link=link,
        xattrs=xattrs,
    )
    return header, b"y" in opaque


def _contents(path: Path) -> Iterator[memoryview]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield memoryview(chunk)


def _vet(header: _Header, what: str, policy: Policy) -> Member:
    """Turn raw fields into a member that can be trusted to be well formed. Raises: ArchiveError."""
    name = header.name
    kind = _KINDS.get(header.kind)
    if kind is None:
        reason = _REFUSED.get(header.kind, f"is of the unknown type {header.kind!r}")
        raise _error(what, name, f"{reason}, which an image must not hold")
    if kind is Kind.FILE and header.kind == b"\0" and name.endswith(b"/"):
        kind = Kind.FOLDER
    parts = _parts(name, what, name)
    if not parts and kind is not Kind.FOLDER:
        raise _error(what, name, f"is a {kind.value} in the place of the root")
    if kind is not Kind.FILE and header.size:
        raise _error(what, name, f"is a {kind.value} with content")
    if max(header.uid, header.gid) > _MAX_ID:
        raise _error(what, name, "has an owner that is out of range")
    mode = header.mode & 0o7777
    special = mode & 0o6000 if kind is Kind.FILE else 0
    if special and policy.setuid == "refuse":
        raise _error(what, name, "is set-user-id or set-group-id")
    stripped = bool(special) and policy.setuid == "strip"
    kind, parts = _whiteout(kind, parts, header.size, what)
    return Member(
        kind=kind,
        parts=parts,
        mode=mode & ~0o6000 if stripped else mode,
        uid=header.uid,
        gid=header.gid,
        mtime=max(0, header.mtime),
        size=header.size,
        target=_target(header.link, what, name) if kind is Kind.SYMLINK else "",
        link=_parts(header.link, what, name) if kind is Kind.HARDLINK else (),
        xattrs=_xattrs(header.xattrs, what, name),
        stripped=stripped,
    )


def _parts(raw: bytes, what: str, name: bytes) -> tuple[str, ...]:
    if b"\0" in raw or not raw:
        raise _error(what, name, "has an empty name or one with a zero byte")
    if raw.startswith(b"/"):
        raise _error(what, name, "has an absolute name")
    if len(raw) > MAX_NAME:
        raise _error(what, name, f"has a name longer than {MAX_NAME} bytes")
    parts = tuple(os.fsdecode(part) for part in raw.split(b"/") if part not in {b"", b"."})
    if ".." in parts:
        raise _error(what, name, "has a name with '..'")
    if any(len(os.fsencode(part)) > MAX_COMPONENT for part in parts):
        raise _error(what, name, f"has a part of its name longer than {MAX_COMPONENT} bytes")
    if len(parts) > MAX_DEPTH:
        raise _error(what, name, f"is more than {MAX_DEPTH} folders deep")
    if any(part.startswith(_WHITEOUT) for part in parts[:-1]):
        raise _error(what, name, "is inside a whiteout")
    return parts


def _whiteout(
    kind: Kind, parts: tuple[str, ...], size: int, what: str
) -> tuple[Kind, tuple[str, ...]]:
    if not parts or not parts[-1].startswith(_WHITEOUT):
        return kind, parts
    name = os.fsencode("/".join(parts))
    if kind is not Kind.FILE or size:
        raise _error(what, name, "is named like a whiteout, but is not an empty file")
    if parts[-1] == _OPAQUE:
        return Kind.OPAQUE, parts[:-1]
    hidden = parts[-1].removeprefix(_WHITEOUT)
    if hidden in {"", ".", ".."} or hidden.startswith(_WHITEOUT):
        raise _error(what, name, f"is a whiteout of {hidden!r}")
    return Kind.WHITEOUT, (*parts[:-1], hidden)


def _target(raw: bytes, what: str, name: bytes) -> str:
    if not raw or b"\0" in raw or len(raw) > MAX_NAME:
        raise _error(what, name, "is a symbolic link with a target that is not a path")
    return os.fsdecode(raw)


def _xattrs(raw: dict[str, bytes], what: str, name: bytes) -> dict[str, bytes]:
    """Keep file capabilities and user attributes; labels of the build host mean nothing elsewhere;
    all else could steer overlayfs or the kernel's integrity code."""
    result = {}
    for key, value in sorted(raw.items()):
        # Neither can be kept: labels are the build host's, and squashfs stores no access lists.
        if key == "security.selinux" or key.startswith("system.posix_acl_"):
            continue
        private = key.startswith(("user.overlay.", "user.fuseoverlayfs.", "user.containers."))
        if key != "security.capability" and (not key.startswith("user.") or private):
            raise _error(what, name, f"has the extended attribute {key[:80]!r}")
        if len(value) > _MAX_XATTRS or len(key) > MAX_COMPONENT:
            raise _error(what, name, f"has an extended attribute {key[:80]!r} that is too large")
        result[key] = value
    return result


def _error(what: str, name: bytes, message: str) -> ArchiveError:
    shown = name[:200].decode("utf-8", "backslashreplace")
    return ArchiveError(f"{what}: member {shown!r} {message}" if name else f"{what}: {message}")
