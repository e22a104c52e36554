"""``import`` of a recipe: files beside it, files from the web, files of other stages.

Invariant: what a script sees at ``/stacker``, and what is put in place, is exactly what its
digests, and so the key of the stage in the cache, were computed from: what is used is a copy of
ours (``take``), or a stream that is hashed again (``unchanged``).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from machineos.build.recipe.placement import Placement, resolve_in
from machineos.build.recipe.stage import path_in_stage
from machineos.build.recipe.stageplan import check_import
from machineos.errors import DigestError, MissingError, PolicyError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from machineos.build.recipe.stage import Import
    from machineos.host.pack.container import Ids

_CHUNK = 1 << 20
_OURS = {"imports", "run"}  # what else a script has at /stacker


@dataclass(frozen=True, slots=True)
class Content:
    """What is imported: ``file``, ``folder`` or ``link``, its mode, and the digest of what is in
    it, in hex, which a recipe may give: of a file its sha256, of a folder one that no file has."""

    kind: str
    mode: int
    digest: str

    def __str__(self) -> str:
        return f"{self.kind} {self.mode:o} {self.digest}"


def gather(
    item: Import,
    *,
    base: Path,
    allowed: Sequence[Path] = (),
    download: Callable[[str, str], tuple[Path, str]],
    stage_tree: Callable[[str], Path],
) -> tuple[Path, Content]:
    """Return where the file or folder of ``item`` is now, and what it is.

    ``base`` is the folder of the recipe, ``allowed`` are others that it may read; ``download`` gets
    a URL with the checksum that the recipe gives, ``stage_tree`` gives the tree of a stage that was
    built. Raises: MissingError, PolicyError (see ``beneath``), DigestError, VerificationError for a
    device, FIFO or socket, and what ``download`` raises.
    """
    if item.path.startswith("https://"):
        path, digest = download(item.path, item.sha256)
        return path, Content("file", stat.S_IMODE(path.stat().st_mode), digest)
    if item.stage:
        path = resolve_in(stage_tree(item.stage), path_in_stage(item.path))
    else:
        path = beneath(base, item.path, allowed)
    if not path.exists():
        raise MissingError(f"import {item.path} does not exist", hint=f"looked for {path}")
    content = content_at(path)
    check_import(item.path, item.sha256, content.digest)
    return path, content


def content_at(path: Path) -> Content:
    """Look at a file, folder or symbolic link. The digest of a folder is over kinds, modes,
    contents and names of what is in it.

    Each kind is hashed in its own way, so that none is taken for another. Raises:
    VerificationError for anything else.
    """
    mode = path.lstat().st_mode
    if stat.S_ISREG(mode):
        kind, digest = "file", digest_of(path)
    elif stat.S_ISLNK(mode):
        kind = "link"
        digest = _hasher(kind, os.fsencode(path.readlink())).hexdigest()
    elif stat.S_ISDIR(mode):
        kind = "folder"
        hasher = _hasher(kind)
        for child in sorted(path.iterdir()):
            hasher.update(f"{content_at(child)} ".encode() + os.fsencode(child.name) + b"\0")
        digest = hasher.hexdigest()
    else:
        raise VerificationError(f"{path} is neither a file nor a folder")
    return Content(kind, stat.S_IMODE(mode), digest)


def digest_of(path: Path) -> str:
    """Return the sha256 of a file, in hex."""
    hasher = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
    return hasher.hexdigest()


def take(path: Path, content: Content, target: Path, *, epoch: int, ids: Ids) -> None:
    """Copy what was gathered at ``path``, with its ``content``, to ``target`` in a folder of ours;
    from there it is used. Raises: DigestError, when it is not the same any more."""
    copy(path, target, epoch=epoch, ids=ids)
    if content_at(target) != content:
        raise _changed(path)


def unchanged(chunks: Iterable[bytes], digest: str, path: Path) -> Iterator[bytes]:
    """Yield ``chunks`` of the file that was gathered at ``path`` with the sha256 ``digest``.

    Raises at their end: DigestError, when it is not the same any more.
    """
    hasher = hashlib.sha256()
    for chunk in chunks:
        hasher.update(chunk)
        yield chunk
    if hasher.hexdigest() != digest:
        raise _changed(path)


def copy(source: Path, target: Path, *, epoch: int, ids: Ids) -> None:
    """Copy a file or folder into a folder of ours, links as links, modes kept, owned by the root of
    a container with ``ids``, all times ``epoch``."""
    Placement(target.parent, (ids.uid, ids.gid), epoch).put(source, f"/{target.name}")


def show(source: Path, name: str, seen: Path, *, epoch: int, ids: Ids) -> None:
    """Have a script see an import: at ``imports/NAME`` and ``NAME`` of the folder ``seen``, which
    it has at ``/stacker``.

    Old recipes look for the second, which is the same files under a second name; where the name
    is one of ours there, it stays ours.
    """
    target = seen / "imports" / name
    copy(source, target, epoch=epoch, ids=ids)
    if name in _OURS:
        return
    if target.is_dir():
        shutil.copytree(target, seen / name, symlinks=True, copy_function=os.link)
    else:
        (seen / name).hardlink_to(target)


def place(source: Path, item: Import, tree: Path, *, epoch: int, ids: Ids) -> None:
    """Copy an import to its ``dest`` in the folder ``tree``, with its owner and mode.

    Links in the tree are followed as the image itself would, never out of it. Raises:
    VerificationError when the way leads through something that is no folder.
    """
    if item.contents and source.is_dir():
        for child in sorted(source.iterdir()):
            inner = replace(item, path=child.name, dest=f"{item.dest.rstrip('/')}/")
            place(child, inner, tree, epoch=epoch, ids=ids)
        return
    placement = Placement(tree, (ids.uid, ids.gid), epoch)
    wanted = item.dest + item.name if item.dest.endswith("/") else item.dest
    if not source.is_dir() and placement.is_folder(wanted):
        wanted = f"{wanted.rstrip('/')}/{item.name}"  # as cp does
    placement.put(source, wanted)
    placement.mark(wanted, (ids.uid + item.uid, ids.gid + item.gid), item.mode)


def beneath(base: Path, path: str, allowed: Sequence[Path] = ()) -> Path:
    """Return the file or folder that a recipe in the folder ``base`` calls ``path``.

    A recipe may be a stranger's, and its scripts may send anywhere what it names. So that has to be
    in ``base``, or in a folder that the caller ``allowed``, when every link was followed. Raises:
    PolicyError, MissingError.
    """
    try:
        found = (base / path).resolve(strict=True)
    except (OSError, RuntimeError) as error:  # the second: a circle of links, before Python 3.13
        raise MissingError(
            f"import {path} does not exist", hint=f"looked for {base / path}"
        ) from error
    if not any(found.is_relative_to(folder.resolve()) for folder in (base, *allowed)):
        folder = found if found.is_dir() else found.parent
        raise PolicyError(
            f"import {path} leads out of the recipe's folder, to {found}",
            hint=f"if the recipe may read what is there: --allow-folder {folder}",
        )
    return found


def _hasher(kind: str, data: bytes = b"") -> hashlib.blake2s:
    """What hashes a kind whose digest may not be that of a file, which is a sha256."""
    return hashlib.blake2s(data, person=kind.encode())


def _changed(path: Path) -> DigestError:
    return DigestError(
        f"{path} changed while the recipe was built", hint="build again when nobody writes it"
    )
