"""Several layers become one tree of names: which layer wins where, and what a whiteout takes away.

A name stands for an inode, whose content is somewhere in a spool that is not kept here. Invariant:
no path from an archive leads out of the tree: a symbolic link above a member is followed inside it,
as if the tree were the root, and its own last part never is.
Why one layer: docs/adr/0003. Whiteouts: OCI image specification, "Whiteouts".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from machineos.build.recipe.member import MAX_DEPTH, Kind, Member
from machineos.build.recipe.tarheader import Facts
from machineos.document.model.image import Sight
from machineos.errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_LINKS = 40  # as Linux has it
Members = Iterable[tuple[Member, Iterator[memoryview]]]


@dataclass(slots=True)
class Inode:
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
        """What a header says of it."""
        return Facts(self.mode, self.uid, self.gid, self.mtime, self.xattrs)


@dataclass(slots=True)
class Entry:
    """A name in a folder. ``newest`` is the last layer that gave it or anything below it, so that
    nobody has to look there; ``cleared`` the last one that took away what was below."""

    inode: Inode
    newest: int
    children: dict[str, Entry] | None = None
    cleared: int = -1


class Tree:
    """Takes the members of layers, lowest first, and is the tree that they make.

    ``store`` is told to keep pieces of contents, one behind the other; ``most`` is how many members
    it takes, folders that no layer listed included.
    """

    def __init__(self, store: Callable[[memoryview], object], *, most: int) -> None:
        self._store_piece = store
        self._most = most
        self.top = Entry(Inode(0o755, 0, 0, 0), -1, {})
        self._layer = -1
        self._stored = 0
        self.members = 0
        self.stripped: list[str] = []

    def add_layer(self, members: Members, *, what: str) -> None:
        """Apply the members of one layer, named ``what`` in messages; their contents are stored.

        Raises: ArchiveError, and what ``members`` raises.
        """
        self._layer += 1
        for member, body in members:
            try:
                self._count()
                self._apply(member, body)
            except _Refusal as error:
                raise ArchiveError(f"{what}: member {member.name[:200]!r} {error}") from error
            if member.stripped:
                self.stripped.append(member.name)

    def ensure_folder(self, parts: tuple[str, ...], *, mode: int | None, mtime: int) -> None:
        """Make the folders of ``parts`` that are missing, and give the last one ``mode``.

        Where something else is in the way, a link also, nothing is made.
        """
        entry = self.top
        for part in parts:
            if entry.children is None:
                return
            if part not in entry.children:
                entry.children[part] = Entry(Inode(0o755, 0, 0, mtime), self._layer, {})
            entry = entry.children[part]
        if mode is not None and entry.children is not None:
            entry.inode.mode = mode

    def see_folder(self, path: str) -> Sight:
        """Return whether the absolute ``path`` is a real folder of the tree.

        The machine sees the same in the mounted image, and says it with the same words.
        """
        entry, current = self.top, ""
        for part in _parts(path):
            current = f"{current}/{part}"
            child = (entry.children or {}).get(part)
            if child is None:
                return Sight(f"{current} does not exist", absent=True)
            if child.children is None:
                kind = "a symbolic link" if child.inode.target else "not a folder"
                return Sight(f"{current} is {kind}")
            entry = child
        return Sight()

    def find_file(self, path: str, *, limit: int) -> Inode | Sight:
        """Return the regular file at the absolute ``path``, of at most ``limit`` bytes.

        Otherwise what is seen instead, as in ``see_folder``.
        """
        *above, name = _parts(path)
        sight = self.see_folder("/".join(above))
        if sight.absent:
            return sight
        if sight.problem:
            return Sight(f"{path} is not read: {sight.problem}")
        folder = self._find(tuple(above))
        entry = (folder.children or {}).get(name) if folder is not None else None
        if entry is None:
            return Sight(f"{path} does not exist", absent=True)
        if entry.inode.target:
            return Sight(f"{path} is a symbolic link")
        if entry.children is not None:
            return Sight(f"{path} is not a regular file")
        if entry.inode.size > limit:
            return Sight(f"{path} is larger than {limit} bytes")
        return entry.inode

    def files(self) -> Iterator[tuple[str, Inode]]:
        """Yield the regular files of the tree, each under one of its names."""
        seen: set[int] = set()
        pending = [("", self.top)]
        while pending:
            path, entry = pending.pop()
            if entry.inode.start >= 0 and id(entry.inode) not in seen:
                seen.add(id(entry.inode))
                yield path, entry.inode
            children = (entry.children or {}).items()
            pending.extend((f"{path}/{name}", child) for name, child in children)

    @property
    def root(self) -> Facts:
        """The root folder, which is no member of the stream."""
        return self.top.inode.facts

    def make_root_newest(self, least: int) -> int:
        """Give the root folder the newest time in the tree, at least ``least``, and return it."""
        pending, newest = [self.top], least
        while pending:
            entry = pending.pop()
            newest = max(newest, entry.inode.mtime)
            pending.extend((entry.children or {}).values())
        self.top.inode.mtime = newest
        return newest

    def _apply(self, member: Member, body: Iterator[memoryview]) -> None:
        match member.kind:
            case Kind.NOTHING:
                pass
            case Kind.WHITEOUT:
                self._whiteout(member.parts)
            case Kind.OPAQUE:
                folder = self._folder_of((*member.parts, "its content"))
                if folder is not None:
                    self._drop_lower(folder)
            case Kind.FOLDER:
                self._folder(member)
            case Kind.FILE:
                start = self._store(body)
                self._put(member, Inode(*_meta(member), start=start, size=member.size))
            case Kind.SYMLINK:
                self._put(member, Inode(*_meta(member), target=member.target))
            case Kind.HARDLINK:
                entry = self._find(member.link)
                if entry is None or entry.children is not None:
                    there = "/".join(member.link)
                    raise _Refusal(
                        f"is a hard link to {there[:200]!r}, which is no file or link in it"
                    )
                self._put(member, entry.inode)
                entry.inode.links += 1

    def _count(self) -> None:
        self.members += 1
        if self.members > self._most:
            raise _Refusal(f"is one too many: the image has more than {self._most} members")

    def _store(self, body: Iterator[memoryview]) -> int:
        start = self._stored
        for piece in body:
            self._store_piece(piece)
            self._stored += len(piece)
        return start

    def _find(self, parts: tuple[str, ...]) -> Entry | None:
        """Return the entry of that name, None if there is none; links above it are followed."""
        folder = self._folder_of(parts)
        if folder is None:
            return None
        return (folder.children or {}).get(parts[-1]) if parts else folder

    def _folder_of(self, parts: tuple[str, ...]) -> Entry | None:
        """Return the folder that holds ``parts``, None where nobody listed it."""
        way = self._way_to(parts, make=False)
        return None if way is None else way[-1]

    def _way_to(self, parts: tuple[str, ...], *, make: bool) -> list[Entry] | None:
        """Return the folders from the root to the one that holds ``parts``; where nobody listed
        one, it is made, or None."""
        done, left, links = [self.top], list(parts[:-1]), 0
        while left:
            part = left.pop(0)
            if part == "..":
                done = done[:-1] or [self.top]
                continue
            child = self._step(done[-1], part, make=make)
            if child is None:
                return None
            if child.children is not None:
                done.append(child)
                if len(done) > MAX_DEPTH:
                    raise _Refusal(f"leads more than {MAX_DEPTH} folders deep")
                continue
            links += 1
            if links > _MAX_LINKS:
                raise _Refusal("leads through too many symbolic links")
            target = child.inode.target
            done = [self.top] if target.startswith("/") else done
            left = [part for part in target.split("/") if part not in {"", "."}] + left
        return done

    def _step(self, folder: Entry, part: str, *, make: bool) -> Entry | None:
        """Return the folder or the link of that name; None, or a new folder, where there is none
        of both."""
        assert folder.children is not None  # noqa: S101 (for the type checker: it is a folder)
        child = folder.children.get(part)
        if child is None and make:
            self._count()
            child = folder.children[part] = Entry(Inode(0o755, 0, 0, 0), self._layer, {})
        if child is None or child.children is not None or child.inode.target:
            return child
        if make:
            raise _Refusal(f"has {part!r} as its folder, a file")
        return None

    def _parent(self, parts: tuple[str, ...]) -> dict[str, Entry]:
        """The folder that will hold ``parts``, made where nobody listed it."""
        way = self._way_to(parts, make=True)
        assert way is not None  # noqa: S101 (for the type checker: it was made)
        for folder in way:
            folder.newest = self._layer
        assert way[-1].children is not None  # noqa: S101 (for the type checker: it is a folder)
        return way[-1].children

    def _folder(self, member: Member) -> None:
        inode = Inode(*_meta(member))
        if not member.parts:
            self.top.inode = inode
            return
        siblings = self._parent(member.parts)
        old = siblings.get(member.parts[-1])
        children = old.children if old is not None else None
        cleared = -1 if old is None else old.cleared
        children = {} if children is None else children
        siblings[member.parts[-1]] = Entry(inode, self._layer, children, cleared)

    def _put(self, member: Member, inode: Inode) -> None:
        """Give the name to ``inode``; of two members of one name the last one counts."""
        self._parent(member.parts)[member.parts[-1]] = Entry(inode, self._layer)

    def _whiteout(self, parts: tuple[str, ...]) -> None:
        folder = self._folder_of(parts)
        if folder is None or folder.children is None:
            return
        entry = folder.children.get(parts[-1])
        if entry is None:
            return
        if entry.newest == self._layer:
            if entry.children is not None:
                self._drop_lower(entry)
        else:
            del folder.children[parts[-1]]

    def _drop_lower(self, folder: Entry) -> None:
        """Remove what lower layers put below ``folder``; whiteouts never hide their own layer."""
        if folder.cleared == self._layer:
            return  # all that is there is this layer's
        folder.cleared = self._layer
        children = folder.children or {}
        for name, entry in list(children.items()):
            if entry.newest != self._layer:
                del children[name]
            elif entry.children is not None:
                self._drop_lower(entry)


class _Refusal(Exception):  # noqa: N818 (a reason on its way to the ArchiveError that names the layer)
    """Why a member cannot be applied to the tree."""


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def _meta(member: Member) -> tuple[int, int, int, int, dict[str, bytes]]:
    return member.mode, member.uid, member.gid, member.mtime, member.xattrs
