"""Several layers become one folder, or one tar stream of our own.

Names are kept in memory (``tree``); contents go, in the order they arrive, into one spool file.
Only when every layer was read and every digest matched is the tree written: as a tar stream, or
into a fresh folder with descriptors of the folders made for it. Invariant: no path from an archive
is ever given to the kernel, so no symbolic link in an archive can lead anywhere.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from machineos.build.recipe.archive import Stream, read_members
from machineos.build.recipe.member import Limits
from machineos.build.recipe.program import read_program
from machineos.build.recipe.tarstream import TarWriter, copy
from machineos.build.recipe.tree import Tree
from machineos.document.model.image import Sight
from machineos.document.model.limits import MAX_INSIDE
from machineos.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from machineos.build.recipe.member import Policy
    from machineos.build.recipe.tarheader import Facts
    from machineos.build.recipe.tree import Entry, Inode
    from machineos.document.rules.programs import Program
    from machineos.host.pack.container import Ids


class Flattener:
    """Takes layers, lowest first, then writes the tree they make.

    ``spool`` must be an empty file, open for reading and writing, on a disk with room for all of
    the contents.
    """

    def __init__(self, spool: IO[bytes], *, limits: Limits, policy: Policy) -> None:
        self._spool = spool
        self._limits = limits
        self._policy = policy
        self._expanded = 0
        self.tree = Tree(spool.write, most=limits.members)

    def add(self, chunks: Iterable[bytes], *, what: str, overlay: bool = False) -> None:
        """Apply one uncompressed layer, named ``what`` in messages. Reads ``chunks`` to the end.

        ``overlay``: it is the content of a file system, with overlayfs's own whiteouts. Raises:
        ArchiveError, and what ``chunks`` raises.
        """
        stream = Stream(chunks, limit=self.left.expanded, what=what)
        members = read_members(
            stream, what=what, limits=self.left, policy=self._policy, overlay=overlay
        )
        self.tree.add_layer(members, what=what)
        self._expanded += stream.seen

    @property
    def left(self) -> Limits:
        """How much more may come."""
        return Limits(
            expanded=self._limits.expanded - self._expanded,
            members=self._limits.members - self.tree.members,
        )

    @property
    def stripped(self) -> list[str]:
        """The names of the files that lost their set-user-id or set-group-id bit."""
        return self.tree.stripped

    @property
    def root(self) -> Facts:
        """The root folder, which is no member of the stream."""
        return self.tree.root

    def see_file(self, path: str, *, limit: int = MAX_INSIDE) -> Sight:
        """Return the content of the regular file at the absolute ``path`` of the tree, if it is one
        of at most ``limit`` bytes and no folder above it is a link or something else."""
        found = self.tree.find_file(path, limit=limit)
        if isinstance(found, Sight):
            return found
        self._spool.flush()
        return Sight(data=os.pread(self._spool.fileno(), found.size, found.start))

    def programs(self) -> Iterator[Program]:
        """Yield what the files are that a machine could run; of others only the head is read."""
        self._spool.flush()
        for path, inode in self.tree.files():
            program = read_program(path, self._reader(inode))
            if program is not None:
                yield program

    def _reader(self, inode: Inode) -> Callable[[int, int], bytes]:
        def read(offset: int, size: int) -> bytes:
            most = min(size, inode.size - offset)
            if most <= 0:
                return b""
            return os.pread(self._spool.fileno(), most, inode.start + offset)

        return read

    def stream(self, output: int) -> None:
        """Write the tree as a tar archive to the descriptor ``output``, names in order."""
        self._spool.flush()
        writer = TarWriter(output, self._spool.fileno())
        _stream(writer, "", self.tree.top, {})
        writer.finish()

    def write(self, folder: Path, ids: Ids) -> None:
        """Write the tree into the new folder ``folder``, its owners those of a container with
        ``ids``. Raises: ArchiveError for an owner that a container cannot have."""
        self._spool.flush()
        folder.mkdir(mode=0o700)
        with (
            tempfile.TemporaryDirectory(dir=folder.parent, prefix="links-") as shared,
            _opened(folder) as top,
            _opened(Path(shared)) as links,
        ):
            _Writer(self._spool.fileno(), links, ids).folder(top, self.tree.top)


def _stream(writer: TarWriter, above: str, entry: Entry, seen: dict[int, str]) -> None:
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

    def __init__(self, spool: int, links: int, ids: Ids) -> None:
        self._spool = spool
        self._links = links
        self._ids = ids
        self._linked: set[int] = set()

    def folder(self, descriptor: int, entry: Entry) -> None:
        for name, child in sorted((entry.children or {}).items()):
            if child.children is not None:
                os.mkdir(name, 0o700, dir_fd=descriptor)
                with _opened(name, descriptor) as inner:
                    self.folder(inner, child)
            elif child.inode.target:
                self._symlink(descriptor, name, child.inode)
            else:
                self._file(descriptor, name, child.inode)
        self._set_metadata(descriptor, entry.inode)

    def _file(self, descriptor: int, name: str, inode: Inode) -> None:
        if inode.links == 1:
            self._create(descriptor, name, inode)
            return
        first = str(id(inode))
        if id(inode) not in self._linked:
            self._create(self._links, first, inode)
            self._linked.add(id(inode))
        os.link(first, name, src_dir_fd=self._links, dst_dir_fd=descriptor)

    def _create(self, folder: int, name: str, inode: Inode) -> None:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(name, flags, 0o600, dir_fd=folder)
        try:
            copy(self._spool, inode.start, inode.size, descriptor)
            self._set_metadata(descriptor, inode)
        finally:
            os.close(descriptor)

    def _symlink(self, descriptor: int, name: str, inode: Inode) -> None:
        os.symlink(inode.target, name, dir_fd=descriptor)
        os.chown(name, *self._owner(inode), dir_fd=descriptor, follow_symlinks=False)
        times = (inode.mtime, inode.mtime)
        os.utime(name, times, dir_fd=descriptor, follow_symlinks=False)

    def _set_metadata(self, descriptor: int, inode: Inode) -> None:
        os.fchown(descriptor, *self._owner(inode))
        os.fchmod(descriptor, inode.mode)  # after the owner: a change of owner clears set-user-id
        for key, value in inode.xattrs.items():
            capability = key == "security.capability"
            os.setxattr(descriptor, key, self._ids.capability(value) if capability else value)
        os.utime(descriptor, (inode.mtime, inode.mtime))

    def _owner(self, inode: Inode) -> tuple[int, int]:
        if max(inode.uid, inode.gid) >= self._ids.count:
            raise ArchiveError(
                f"a file belongs to {inode.uid}:{inode.gid}, and a tree of files can hold owners "
                f"up to {self._ids.count - 1} here",
                hint="give the user more subordinate ids (subuid(5), subgid(5)), or run it as root",
            )
        return self._ids.uid + inode.uid, self._ids.gid + inode.gid


@contextmanager
def _opened(name: Path | str, parent: int | None = None) -> Iterator[int]:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
