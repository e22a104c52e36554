"""Several layers become one folder.

A tree of names is kept in memory; contents go, in the order they arrive, into one spool file. Only
when every layer was read and every digest matched is the tree written: as a tar stream of our own,
or into a fresh folder with descriptors of the folders made for it. Invariant: no path from an
archive is ever given to the kernel, so no symbolic link in an archive can lead anywhere.
Why one layer: docs/adr/0003. Whiteouts: OCI image specification, "Whiteouts".
"""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from machineos.build.recipe.archive import (
    Kind,
    Limits,
    Member,
    Policy,
    Stream,
    folder_members,
    read_members,
)
from machineos.build.recipe.tarstream import Facts, TarWriter, copy
from machineos.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(slots=True)
class _Inode:
    """What a name stands for; hard links share it. ``start`` is where the spool has its content,
    -1 for what has none."""

    mode: int
    uid: int
    gid: int
    mtime: int
    xattrs: dict[str, bytes] = field(default_factory=dict)
    target: str = ""
    start: int = -1
    size: int = 0
    links: int = 1

    @property
    def facts(self) -> Facts:
        return Facts(self.mode, self.uid, self.gid, self.mtime, self.xattrs)


@dataclass(slots=True)
class _Entry:
    """A name in a folder. ``layer`` gave it; ``implied``: a parent that no layer listed."""

    inode: _Inode
    layer: int
    children: dict[str, _Entry] | None = None
    implied: bool = False


class Flattener:
    """Takes layers, lowest first, then writes the tree they make.

    ``spool`` must be an empty file, open for reading and writing, on a disk with room for all of
    the contents.
    """

    def __init__(self, spool: IO[bytes], *, limits: Limits, policy: Policy) -> None:
        self._spool = spool
        self._limits = limits
        self._policy = policy
        self._root = _Entry(_Inode(0o755, 0, 0, 0), -1, {}, implied=True)
        self._layer = -1
        self._expanded = 0
        self._members = 0
        self._spooled = 0
        self.stripped: list[str] = []

    def add(self, chunks: Iterable[bytes], *, what: str) -> None:
        """Apply one uncompressed layer, named ``what`` in messages. Reads ``chunks`` to the end.

        Raises: ArchiveError, and what ``chunks`` raises.
        """
        stream = Stream(chunks, limit=self._limits.expanded - self._expanded, what=what)
        limits = Limits(members=self._limits.members - self._members)
        self._add(read_members(stream, what=what, limits=limits, policy=self._policy), what)
        self._expanded += stream.seen

    def add_folder(self, tree: Path, *, what: str) -> None:
        """Apply one layer that was unpacked from a file system image into ``tree``.

        Raises: ArchiveError.
        """
        limits = Limits(members=self._limits.members - self._members)
        self._add(folder_members(tree, what=what, limits=limits, policy=self._policy), what)

    def _add(self, members: Iterable[tuple[Member, Iterator[memoryview]]], what: str) -> None:
        self._layer += 1
        for member, body in members:
            self._members += 1
            try:
                self._apply(member, body)
            except _Refusal as error:
                raise ArchiveError(f"{what}: member {member.name[:200]!r} {error}") from error
            if member.stripped:
                self.stripped.append(member.name)

    def ensure_folder(self, parts: tuple[str, ...], *, mode: int | None, mtime: int) -> None:
        """Make the folders of ``parts`` that are missing, and give the last one ``mode``.

        Where something else is in the way, a link also, nothing is made.
        """
        entry = self._root
        for part in parts:
            if entry.children is None:
                return
            if part not in entry.children:
                entry.children[part] = _Entry(_Inode(0o755, 0, 0, mtime), self._layer, {})
            entry = entry.children[part]
        if mode is not None and entry.children is not None:
            entry.inode.mode = mode

    def folder_problem(self, path: str) -> str:
        """Return why the absolute ``path`` is not a real folder of the tree, "" when it is one."""
        entry, current = self._root, ""
        for part in path.strip("/").split("/"):
            current = f"{current}/{part}"
            child = (entry.children or {}).get(part)
            if child is None:
                return f"{current} does not exist"
            if child.children is None:
                kind = "a symbolic link" if child.inode.target else "not a folder"
                return f"{current} is {kind}"
            entry = child
        return ""

    @property
    def root(self) -> Facts:
        """The root folder, which is no member of the stream."""
        return self._root.inode.facts

    def make_root_newest(self, least: int) -> int:
        """Give the root folder the newest time in the tree, at least ``least``, and return it."""
        pending, newest = [self._root], least
        while pending:
            entry = pending.pop()
            newest = max(newest, entry.inode.mtime)
            pending.extend((entry.children or {}).values())
        self._root.inode.mtime = newest
        return newest

    def stream(self, output: int) -> None:
        """Write the tree as a tar archive to the descriptor ``output``, names in order."""
        self._spool.flush()
        writer = TarWriter(output, self._spool.fileno())
        _stream(writer, "", self._root, {})
        writer.finish()

    def write(self, folder: Path) -> None:
        """Write the tree into the new folder ``folder``, owners included, so as root."""
        self._spool.flush()
        folder.mkdir(mode=0o700)
        with (
            tempfile.TemporaryDirectory(dir=folder.parent, prefix="links-") as shared,
            _opened(folder) as top,
            _opened(Path(shared)) as links,
        ):
            _Writer(self._spool.fileno(), links).folder(top, self._root)

    def _apply(self, member: Member, body: Iterator[memoryview]) -> None:
        match member.kind:
            case Kind.WHITEOUT:
                self._whiteout(member.parts)
            case Kind.OPAQUE:
                folder = self._find(member.parts)
                if folder is not None and folder.children is not None:
                    self._drop_lower(folder)
            case Kind.FOLDER:
                self._folder(member)
            case Kind.FILE:
                start = self._store(body)
                self._put(member, _Inode(*_meta(member), start=start, size=member.size))
            case Kind.SYMLINK:
                self._put(member, _Inode(*_meta(member), target=member.target))
            case Kind.HARDLINK:
                entry = self._find(member.link)
                if entry is None or entry.inode.start < 0:
                    there = "/".join(member.link)
                    raise _Refusal(f"is a hard link to {there[:200]!r}, which is not a file in it")
                self._put(member, entry.inode)
                entry.inode.links += 1

    def _store(self, body: Iterator[memoryview]) -> int:
        start = self._spooled
        for piece in body:
            self._spool.write(piece)
            self._spooled += len(piece)
        return start

    def _find(self, parts: tuple[str, ...]) -> _Entry | None:
        """The entry of that name, None if there is none; a symbolic link is never followed."""
        entry = self._root
        for part in parts:
            child = None if entry.children is None else entry.children.get(part)
            if child is None:
                return None
            entry = child
        return entry

    def _parent(self, parts: tuple[str, ...]) -> dict[str, _Entry]:
        """The folder that will hold ``parts``, made where nobody listed it."""
        entry = self._root
        for depth, part in enumerate(parts[:-1]):
            assert entry.children is not None  # noqa: S101 (for the type checker; see below)
            child = entry.children.get(part)
            if child is None:
                child = _Entry(_Inode(0o755, 0, 0, 0), self._layer, {}, implied=True)
                entry.children[part] = child
            elif child.children is None:
                kind = "symbolic link" if child.inode.target else "file"
                raise _Refusal(f"has {'/'.join(parts[: depth + 1])!r} as its folder, a {kind}")
            entry = child
        assert entry.children is not None  # noqa: S101
        return entry.children

    def _folder(self, member: Member) -> None:
        inode = _Inode(*_meta(member))
        if not member.parts:
            self._root.inode = inode
            return
        siblings = self._parent(member.parts)
        name = member.parts[-1]
        old = siblings.get(name)
        if old is None or (old.children is None and old.layer < self._layer):
            siblings[name] = _Entry(inode, self._layer, {})
            return
        if old.children is None or (
            old.layer == self._layer and not old.implied and old.inode != inode
        ):
            raise _Refusal("is in the archive twice")
        siblings[name] = _Entry(inode, self._layer, old.children)

    def _put(self, member: Member, inode: _Inode) -> None:
        siblings = self._parent(member.parts)
        name = member.parts[-1]
        old = siblings.get(name)
        if old is not None and self._is_new(old):
            raise _Refusal("is in the archive twice")
        siblings[name] = _Entry(inode, self._layer)

    def _is_new(self, entry: _Entry) -> bool:
        """Whether this layer gave the entry or anything below it."""
        below = (entry.children or {}).values()
        return entry.layer == self._layer or any(self._is_new(child) for child in below)

    def _whiteout(self, parts: tuple[str, ...]) -> None:
        folder = self._find(parts[:-1])
        if folder is None or folder.children is None:
            return
        entry = folder.children.get(parts[-1])
        if entry is None:
            return
        if self._is_new(entry):
            if entry.children is not None:
                self._drop_lower(entry)
        else:
            del folder.children[parts[-1]]

    def _drop_lower(self, folder: _Entry) -> None:
        """Remove what lower layers put below ``folder``; whiteouts never hide their own layer."""
        children = folder.children or {}
        for name, entry in list(children.items()):
            if not self._is_new(entry):
                del children[name]
            elif entry.children is not None:
                self._drop_lower(entry)


class _Refusal(Exception):  # noqa: N818 (a reason on its way to the ArchiveError that names the layer)
    """Why a member cannot be applied to the tree."""


def _stream(writer: TarWriter, above: str, entry: _Entry, seen: dict[int, str]) -> None:
    """Write what is below ``entry``; ``seen`` has the first name of each file that was written."""
    for name, child in sorted((entry.children or {}).items()):
        path, inode = above + name, child.inode
        if child.children is not None:
            writer.folder(path, inode.facts)
            _stream(writer, path + "/", child, seen)
        elif inode.target:
            writer.symlink(path, inode.facts, inode.target)
        elif id(inode) in seen:
            writer.hardlink(path, inode.facts, seen[id(inode)])
        else:
            seen[id(inode)] = path
            writer.file(path, inode.facts, inode.start, inode.size)


class _Writer:
    """Writes entries below descriptors of folders that it made itself; ``links`` is a folder for
    the files with several names."""

    def __init__(self, spool: int, links: int) -> None:
        self._spool = spool
        self._links = links
        self._linked: set[int] = set()

    def folder(self, descriptor: int, entry: _Entry) -> None:
        for name, child in sorted((entry.children or {}).items()):
            if child.children is not None:
                os.mkdir(name, 0o700, dir_fd=descriptor)
                with _opened(name, descriptor) as inner:
                    self.folder(inner, child)
            elif child.inode.target:
                self._symlink(descriptor, name, child.inode)
            else:
                self._file(descriptor, name, child.inode)
        _set_metadata(descriptor, entry.inode)

    def _file(self, descriptor: int, name: str, inode: _Inode) -> None:
        if inode.links == 1:
            self._create(descriptor, name, inode)
            return
        first = str(id(inode))
        if id(inode) not in self._linked:
            self._create(self._links, first, inode)
            self._linked.add(id(inode))
        os.link(first, name, src_dir_fd=self._links, dst_dir_fd=descriptor)

    def _create(self, folder: int, name: str, inode: _Inode) -> None:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(name, flags, 0o600, dir_fd=folder)
        try:
            copy(self._spool, inode.start, inode.size, descriptor)
            _set_metadata(descriptor, inode)
        finally:
            os.close(descriptor)

    def _symlink(self, descriptor: int, name: str, inode: _Inode) -> None:
        os.symlink(inode.target, name, dir_fd=descriptor)
        os.chown(name, inode.uid, inode.gid, dir_fd=descriptor, follow_symlinks=False)
        times = (inode.mtime, inode.mtime)
        os.utime(name, times, dir_fd=descriptor, follow_symlinks=False)


def _meta(member: Member) -> tuple[int, int, int, int, dict[str, bytes]]:
    return member.mode, member.uid, member.gid, member.mtime, member.xattrs


def _set_metadata(descriptor: int, inode: _Inode) -> None:
    os.fchown(descriptor, inode.uid, inode.gid)
    os.fchmod(descriptor, inode.mode)  # after the owner: a change of owner clears set-user-id
    for key, value in inode.xattrs.items():
        os.setxattr(descriptor, key, value)
    os.utime(descriptor, (inode.mtime, inode.mtime))


@contextmanager
def _opened(name: Path | str, parent: int | None = None) -> Iterator[int]:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
