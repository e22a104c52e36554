"""``import`` of a recipe: files beside it, files from the web, files of other stages.

Invariant: what a script sees at ``/stacker`` is exactly what its digests, and so the key of
the stage in the cache, were computed from.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

from machineos.build.recipe.stage import path_in_stage
from machineos.build.recipe.stageplan import check_import
from machineos.errors import MissingError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from machineos.build.recipe.stage import Import

_CHUNK = 1 << 20
_MAX_LINKS = 40
_OURS = {"imports", "run"}  # what else a script has at /stacker


def gather(
    item: Import,
    *,
    base: Path,
    download: Callable[[str, str], tuple[Path, str]],
    stage_tree: Callable[[str], Path],
) -> tuple[Path, str]:
    """Return where the file or folder of ``item`` is now, and its digest.

    ``base`` is the folder of the recipe, ``download`` gets a URL with the checksum that the recipe
    gives, ``stage_tree`` gives the tree of a stage that was built. Raises: MissingError,
    DigestError, VerificationError for a device, FIFO or socket, and what ``download`` raises.
    """
    if item.path.startswith("https://"):
        return download(item.path, item.sha256)
    if item.stage:
        path = resolve_in(stage_tree(item.stage), path_in_stage(item.path))
    else:
        path = (base / item.path).resolve()
    if not path.exists():
        raise MissingError(f"import {item.path} does not exist", hint=f"looked for {path}")
    digest = digest_of(path)
    check_import(item.path, item.sha256, digest)
    return path, digest


def digest_of(path: Path) -> str:
    """Return the sha256 of a file, or one over names, modes and contents of a folder.

    Raises: VerificationError for anything that is neither file, folder nor symbolic link.
    """
    hasher = hashlib.sha256()
    mode = path.lstat().st_mode
    if stat.S_ISREG(mode):
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                hasher.update(chunk)
    elif stat.S_ISLNK(mode):
        hasher.update(b"link\0" + os.fsencode(path.readlink()))
    elif stat.S_ISDIR(mode):
        for child in sorted(path.iterdir()):
            permissions = stat.S_IMODE(child.lstat().st_mode)
            hasher.update(f"{permissions:o} {digest_of(child)} ".encode())
            hasher.update(os.fsencode(child.name) + b"\0")
    else:
        raise VerificationError(f"{path} is neither a file nor a folder")
    return hasher.hexdigest()


def copy(source: Path, target: Path, *, epoch: int) -> None:
    """Copy a file or folder, links as links, modes kept, owned by root, all times ``epoch``."""
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target, follow_symlinks=False)
    _own(target, epoch)


def show(source: Path, name: str, seen: Path, *, epoch: int) -> None:
    """Have a script see an import: at ``imports/NAME`` and ``NAME`` of the folder ``seen``, which
    it has at ``/stacker``.

    Old recipes look for the second, which is the same files under a second name; where the name
    is one of ours there, it stays ours.
    """
    target = seen / "imports" / name
    copy(source, target, epoch=epoch)
    if name in _OURS:
        return
    if target.is_dir():
        shutil.copytree(target, seen / name, symlinks=True, copy_function=os.link)
    else:
        (seen / name).hardlink_to(target)


def place(source: Path, item: Import, tree: Path, *, epoch: int) -> None:
    """Copy an import to its ``dest`` in the folder ``tree``, with its owner and mode.

    Links in the tree are followed as the image itself would, never out of it. Raises:
    VerificationError when the way leads through something that is no folder.
    """
    if item.contents and source.is_dir():
        for child in sorted(source.iterdir()):
            inner = replace(item, path=child.name, dest=f"{item.dest.rstrip('/')}/")
            place(child, inner, tree, epoch=epoch)
        return
    wanted = item.dest + item.name if item.dest.endswith("/") else item.dest
    parent, _, name = wanted.rpartition("/")
    folder = tree
    for part in parent.split("/"):
        folder = resolve_in(tree, "/" + os.path.relpath(folder / part, tree)) if part else folder
        if not folder.exists():
            folder.mkdir(mode=0o755)
        if not folder.is_dir():
            raise VerificationError(f"import {item.path}: /{folder.relative_to(tree)} is no folder")
    target = folder / name
    if target.is_symlink() or target.is_file():
        target.unlink()
    copy(source, target, epoch=epoch)
    os.chown(target, item.uid, item.gid, follow_symlinks=False)
    if item.mode is not None:
        target.chmod(item.mode)


def resolve_in(tree: Path, path: str) -> Path:
    """Return where ``path`` leads when ``tree`` is the root: links and ``..`` stay inside.

    The result need not exist; it has no symbolic link in it. Raises: VerificationError for a circle
    of links.
    """
    left = [part for part in path.split("/") if part not in {"", "."}]
    done: list[str] = []
    links = 0
    while left:
        part = left.pop(0)
        if part == "..":
            done = done[:-1]
            continue
        here = tree.joinpath(*done, part)
        if not here.is_symlink():
            done.append(part)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise VerificationError(f"{path}: too many symbolic links")
        target = os.fspath(here.readlink())
        if target.startswith("/"):
            done = []
        left = [part for part in target.split("/") if part not in {"", "."}] + left
    return tree.joinpath(*done)


def _own(target: Path, epoch: int) -> None:
    paths = [target]
    if target.is_dir() and not target.is_symlink():
        paths += target.rglob("*")
    for path in reversed(paths):
        os.chown(path, 0, 0, follow_symlinks=False)
        os.utime(path, (epoch, epoch), follow_symlinks=False)
