"""The root of an image in memory, looked at as ``act.rootfs`` looks at a real one."""

from __future__ import annotations

import posixpath

from contracts.place import FIFO, FOLDER
from machineos.document.model.image import Sight

Tree = dict[str, str | bytes | tuple[str, str]]
MAX_READ = 1 << 20


def see_folder(tree: Tree, path: str) -> Sight:
    """Look for a folder as ``act.rootfs`` does."""
    names = _components(path)
    if names is None:
        return Sight(f"{path[:120]!r} is no path inside an image")
    current = "/"
    for name in names:
        current = posixpath.join(current, name)
        what = _at(tree, current)
        if what is None:
            return Sight(f"{current} does not exist", absent=True)
        if isinstance(what, tuple):
            return Sight(f"{current} is a symbolic link")
        if what != FOLDER:
            return Sight(f"{current} is not a folder")
    return Sight()


def see_file(tree: Tree, path: str) -> Sight:
    """Read a file as ``act.rootfs`` does."""
    names = _components(path)
    if not names:
        return Sight(f"{path[:120]!r} is no path inside an image")
    above = see_folder(tree, "/" + "/".join(names[:-1]))
    if above.absent:
        return above
    if above.problem:
        return Sight(f"{path} is not read: {above.problem}")
    what = _at(tree, path)
    if what is None:
        return Sight(f"{path} does not exist", absent=True)
    if isinstance(what, tuple):
        return Sight(f"{path} is a symbolic link")
    if what in (FOLDER, FIFO) or not isinstance(what, bytes):
        return Sight(f"{path} is not a regular file")
    if len(what) > MAX_READ:
        return Sight(f"{path} is larger than {MAX_READ} bytes")
    return Sight(data=what)


def _at(tree: Tree, path: str) -> str | bytes | tuple[str, str] | None:
    """Return what is at a path; a folder is there also when only something below it is named."""
    if path in tree:
        return tree[path]
    return FOLDER if any(name.startswith(f"{path}/") for name in tree) else None


def _components(path: str) -> list[str] | None:
    names = [name for name in path.split("/") if name]
    if not path.startswith("/") or {".", ".."} & set(names) or "\0" in path:
        return None
    return names
