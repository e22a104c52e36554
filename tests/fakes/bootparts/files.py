"""File systems in memory, and what is mounted where."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fakes.layers import note_of
from machineos.errors import DocumentError, Fault, MissingError, ToolError
from machineos.host.kernel.flags import Flag
from unit.document.conftest import MemoryRepository

Kind = Literal["file", "folder", "link", "fifo"]


@dataclass
class Entry:
    """One file, folder, link or FIFO. A folder has 0755 unless it says so."""

    kind: Kind
    data: bytes = b""
    mode: int = 0o644


class Tree:
    """The content of one file system; ``writes`` counts what changed it.

    ``repositories`` are OCI layouts at a path of it: their blobs are files there.
    """

    def __init__(self, repositories: dict[str, MemoryRepository] | None = None) -> None:
        self.entries: dict[str, Entry] = {".": Entry("folder", mode=0o755)}
        self.repositories = repositories or {}
        self.writes = 0

    def put(self, path: str, data: bytes = b"", *, mode: int = 0o644, kind: Kind = "file") -> None:
        """Put something there, with the folders above it."""
        for above in reversed(Path(path).parents):
            self.entries.setdefault(str(above), Entry("folder", mode=0o755))
        self.entries[path] = Entry(kind, data, mode)

    def folder(self, path: str) -> None:
        """Make a folder, with those above it."""
        self.put(path, kind="folder", mode=0o755)

    def get(self, path: str) -> Entry | None:
        """Return what is at a path."""
        for where, repository in self.repositories.items():
            blob = blob_of(repository, path.removeprefix(f"{where}/blobs/"))
            if path.startswith(f"{where}/blobs/") and blob is not None:
                return Entry("file", blob)
        return self.entries.get(path)

    def below(self, prefix: str) -> dict[str, Entry]:
        """Return copies of what is below a folder, by path from there."""
        start = f"{prefix}/"
        return {
            path.removeprefix(start): Entry(entry.kind, entry.data, entry.mode)
            for path, entry in self.entries.items()
            if path.startswith(start)
        }


def blob_of(repository: MemoryRepository, path: str) -> bytes | None:
    """Return the bytes under ``algorithm/hex``, whether they are the right ones or not."""
    wanted = path.replace("/", ":", 1)
    return next((data for digest, data in blobs(repository).items() if str(digest) == wanted), None)


def blobs(repository: MemoryRepository) -> dict[object, bytes]:
    """Return the blobs of a repository, to be read or spoilt."""
    return repository._blobs  # type: ignore[return-value]


def image_content(
    *programs: str,
    folders: tuple[str, ...] = (),
    files: Mapping[str, bytes] | None = None,
    note: str = "",
) -> bytes:
    """Return the note in a layer that stands for these programs, folders and files."""
    contents = {path: data.hex() for path, data in (files or {}).items()}
    made = {"programs": programs, "folders": folders, "files": contents, "note": note}
    return json.dumps(made).encode()


def image_tree(data: bytes) -> Tree:
    """Return the files of such an image. Raises: ToolError when it is none."""
    try:
        content = json.loads(note_of(data))
    except ValueError as error:
        raise ToolError("mount: wrong fs type") from error
    tree = Tree()
    for path in content["programs"]:
        tree.put(path, b"\x7fELF", mode=0o755)
    for path in content["folders"]:
        tree.folder(path)
    for path, text in content["files"].items():
        tree.put(path, bytes.fromhex(text))
    return tree


@dataclass
class Mounted:
    """One mount: the folder ``sub`` of ``tree``, of that kind, with those flags, at ``target``."""

    target: Path
    tree: Tree
    kind: str
    source: str
    flags: Flag = Flag.NONE
    sub: str = "."

    def inner(self, path: Path) -> str:
        """Return the path in the tree of a path below the target."""
        return str(Path(self.sub) / path.relative_to(self.target))


@dataclass
class Namespace:
    """Every mount, oldest first; the first is the root."""

    mounts: list[Mounted] = field(default_factory=list)

    def owner(self, path: Path) -> Mounted:
        """Return the mount that shows ``path``."""
        above = {path, *path.parents}
        covering = [one for one in self.mounts if one.target in above]
        return max(enumerate(covering), key=lambda at: (len(at[1].target.parts), at[0]))[1]

    def at(self, target: Path) -> Mounted | None:
        """Return what is mounted exactly there, the newest."""
        return next((one for one in reversed(self.mounts) if one.target == target), None)

    def entry(self, path: Path) -> Entry | None:
        """Return what is at a path."""
        mount = self.owner(path)
        return mount.tree.get(mount.inner(path))

    def read(self, path: Path, limit: int) -> bytes:
        """Read as ``core.files.read_bounded`` does."""
        found = self.entry(path)
        if found is None:
            raise MissingError(f"{path} does not exist")
        if found.kind == "link":
            raise DocumentError(str(path), [Fault("", 0, "is a symbolic link")])
        if found.kind != "file":
            raise DocumentError(str(path), [Fault("", 0, "is not a regular file")])
        if len(found.data) > limit:
            raise DocumentError(str(path), [Fault("", 0, f"is larger than {limit} bytes")])
        return found.data

    def list_folder(self, path: Path) -> tuple[str, ...]:
        """Return the names in a folder, none when it is not there. Raises: OSError."""
        found = self.entry(path)
        if found is None:
            return ()
        if found.kind != "folder":
            raise _error(errno.ENOTDIR, path)
        mount = self.owner(path)
        inner = Path(mount.inner(path))
        return tuple(
            Path(name).name
            for name in mount.tree.entries
            if name != "." and Path(name).parent == inner
        )

    def put(self, path: Path, entry: Entry) -> None:
        """Write into a folder that is there. Raises: OSError."""
        mount = self.owner(path)
        above = self.entry(path.parent)
        if above is None:
            raise _error(errno.ENOENT, path)
        if above.kind != "folder":
            raise _error(errno.ENOTDIR, path)
        if Flag.RDONLY in mount.flags:
            raise _error(errno.EROFS, path)
        mount.tree.entries[mount.inner(path)] = entry
        mount.tree.writes += 1

    def erase(self, path: Path) -> None:
        """Overwrite and remove as ``core.files.erase`` does. Raises: MachineOSError, OSError."""
        size = len(self.read(path, 1 << 30))
        self.put(path, Entry("file", bytes(size)))
        mount = self.owner(path)
        del mount.tree.entries[mount.inner(path)]

    def make_folder(self, path: Path, mode: int) -> None:
        """Make one folder that is not there. Raises: OSError."""
        if self.entry(path) is not None:
            raise _error(errno.EEXIST, path)
        self.put(path, Entry("folder", mode=mode))

    def add(self, mount: Mounted) -> None:
        """Mount something on a folder. Raises: MissingError, ToolError."""
        self._folder(mount.target, f"mount {mount.kind} {mount.source}")
        self.mounts.append(mount)

    def overlay(self, target: Path, upper: Path, work: Path, flags: Flag) -> None:
        """Put the content of ``upper``, which can be written to, over ``target``."""
        for folder in (upper, work):
            self._folder(folder, "mount overlay")
            if Flag.RDONLY in self.owner(folder).flags:
                raise ToolError("mount overlay: the upper folder cannot be written to")
        lower, above = self.owner(target), self.owner(upper)
        tree = Tree()
        tree.entries |= lower.tree.below(lower.inner(target))
        tree.entries |= above.tree.below(above.inner(upper))
        self.add(Mounted(target, tree, "overlay", "overlay", flags))

    def bind(self, source: Path, target: Path, flags: Flag) -> None:
        """Show a folder a second time."""
        self._folder(source, f"bind {source}")
        shown = self.owner(source)
        self.add(Mounted(target, shown.tree, "bind", str(source), flags, sub=shown.inner(source)))

    def move(self, source: Path, target: Path) -> None:
        """Move a mount with those below it. Raises: MissingError, ToolError."""
        if self.at(source) is None:
            raise ToolError(f"mount MOVE {source} at {target}: Invalid argument")
        self._folder(target, f"mount MOVE {source}")
        for one in self.mounts:
            if one.target.is_relative_to(source):
                one.target = target / one.target.relative_to(source)

    def unmount(self, target: Path) -> None:
        """Undo the newest mount there. Raises: ToolError."""
        found = self.at(target)
        if found is None:
            raise ToolError(f"unmount {target}: Invalid argument")
        self.mounts.remove(found)

    def walk(self) -> Iterator[tuple[Path, Entry]]:
        """Yield every file that some mount in memory holds."""
        for mount in self.mounts:
            for path, entry in mount.tree.entries.items():
                yield mount.target / path, entry

    def _folder(self, path: Path, what: str) -> None:
        found = self.entry(path)
        if found is None:
            raise MissingError(f"{what} at {path}: No such file or directory")
        if found.kind != "folder":
            raise ToolError(f"{what} at {path}: Not a directory")


def _error(code: int, path: Path) -> OSError:
    return OSError(code, os.strerror(code), str(path))
