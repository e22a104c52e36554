"""``run`` scripts of a recipe, in a container of their own.

The script sees the stage's folder as its root, ``/stacker/imports`` read-only, a fresh ``/proc``, a
``/dev`` of five devices, and a network of its own unless the recipe says none. Its processes and
mounts live in namespaces that end with it, so nothing stays behind, whether it succeeds, fails or
is interrupted. Invariant: mount points are made without following a link that the image planted,
and are taken away by descriptors that were opened before the script ran, so that nothing outside
the tree is ever touched, whatever the script did to the names in it.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from machineos.build.recipe.script import MOUNT_POINTS, RESOLVER, Script, require_good, script_box
from machineos.core.printable import printable
from machineos.errors import ArchiveError, UsageError
from machineos.host.pack.caller import require_container, run_boxed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from machineos.host.pack.container import Ids

_TAIL = 4096
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ASIDE = ".resolv.conf.machineos"


def require_programs(folder: Path) -> None:
    """Raises: UsageError, unless programs that are in ``folder`` may be run."""
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        raise UsageError(
            f"{folder} is on a file system that is mounted noexec: no program of the image can run",
            hint="--cache DIR builds in another folder",
        )


def run_script(
    script: Script,
    root: Path,
    imports: Path,
    *,
    environment: Mapping[str, str],
    log: Path,
    ids: Ids,
    proxies: Mapping[str, str] | None = None,
) -> None:
    """Run ``script`` with the folder ``root`` as its root; all it prints goes to the file ``log``.

    ``imports`` is a folder that holds ``imports/``; the script is written beside it. ``ids`` are
    those of ``caller.own_ids``, ``proxies`` variables for a script that has the network. Raises:
    ToolError with the end of the log, its control characters quoted, ToolTimeoutError, ArchiveError
    when the tree has something else than a folder where a mount is needed, UsageError.
    """
    require_programs(root)
    _write_script(imports / "run", script.content)
    with ExitStack() as stack:
        top = stack.enter_context(_opened(root))
        for name in MOUNT_POINTS:
            stack.enter_context(_folder(top, name, ids))
        resolver = script.network and stack.enter_context(_resolver(top, ids))
        box = script_box(script, root.resolve(), imports.resolve(), environment, resolver=resolver)
        with log.open("wb") as file:
            # Its group may write: a script that opens /dev/stderr opens this file anew.
            os.fchown(file.fileno(), -1, ids.gid)
            os.fchmod(file.fileno(), 0o664)
            more = proxies if script.network else None
            result = run_boxed(box, ids, timeout=script.timeout, log=file, more=more, check=False)
    tail = _tail(log)
    require_container(result.status, tail)
    require_good(script, result.status, tail, log)


def _write_script(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


@contextmanager
def _opened(path: Path | str, parent: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, _FOLDER, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _folder(top: int, name: str, ids: Ids) -> Iterator[None]:
    """Have a real folder ``name`` in ``top`` for the length of the block, never through a link."""
    try:
        os.mkdir(name, 0o755, dir_fd=top)
        os.chown(name, ids.uid, ids.gid, dir_fd=top, follow_symlinks=False)
        made = True
    except FileExistsError:
        made = False
    if not stat.S_ISDIR(os.stat(name, dir_fd=top, follow_symlinks=False).st_mode):
        raise ArchiveError(f"the image has something else than a folder at /{name}")
    try:
        yield
    finally:
        if made:
            _remove_empty(top, name)


def _remove_empty(top: int, name: str) -> None:
    try:
        os.rmdir(name, dir_fd=top)
    except OSError as error:
        # The script put something there on purpose, or took the folder away: both are its right.
        if error.errno not in {errno.ENOTEMPTY, errno.ENOENT, errno.ENOTDIR}:
            raise


@contextmanager
def _resolver(top: int, ids: Ids) -> Iterator[bool]:
    """Have an empty file to mount over at ``/etc/resolv.conf``; what the image had comes back."""
    path = RESOLVER.rpartition("/")[2]
    with ExitStack() as stack:
        try:
            etc = stack.enter_context(_opened("etc", top))
        except OSError:  # there is none, or it is a link
            yield False
            return
        names = os.listdir(etc)  # noqa: PTH208 (a descriptor)
        if _ASIDE in names:
            yield False
            return
        if path in names:
            os.rename(path, _ASIDE, src_dir_fd=etc, dst_dir_fd=etc)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        file = os.open(path, flags, 0o644, dir_fd=etc)
        os.fchown(file, ids.uid, ids.gid)
        os.close(file)
        try:
            yield True
        finally:
            # In the folder that was /etc then, wherever the script has moved it since.
            with suppress(FileNotFoundError, IsADirectoryError):
                os.unlink(path, dir_fd=etc)
            with suppress(FileNotFoundError, IsADirectoryError):
                os.rename(_ASIDE, path, src_dir_fd=etc, dst_dir_fd=etc)


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL))
        return printable(file.read().decode("utf-8", "replace").rstrip())
