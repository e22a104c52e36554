"""``run`` scripts of a recipe, in a sandbox of their own.

The script sees the stage's folder as its root, ``/stacker/imports`` read-only, a fresh ``/proc``, a
``/dev`` of six devices, and the host's network unless the recipe says otherwise. Its processes and
mounts live in namespaces that end with it, so nothing stays behind, whether it succeeds, fails or
is interrupted. Invariant: mount points are made without following a link that the image planted,
and are gone from the tree afterwards.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.build.recipe.script import (
    MOUNT_POINTS,
    RESOLVER,
    Script,
    require_good,
    sandbox_command,
)
from machineos.core.printable import printable
from machineos.core.run import perform
from machineos.errors import ArchiveError, UsageError
from machineos.host.pack import confine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_TAIL = 4096


def require_root(what: str) -> None:
    """Raises: UsageError, which names ``what``, unless we are root: owners and mounts need it.
    Building without root, in a user namespace, is not there yet."""
    if os.geteuid() != 0:
        raise UsageError(
            f"{what} needs root: files of several owners are written",
            hint="run it with sudo; a build in a user namespace is not implemented",
        )


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
    proxies: Mapping[str, str] | None = None,
) -> None:
    """Run ``script`` with the folder ``root`` as its root; all it prints goes to the file ``log``.

    ``imports`` is a folder that holds ``imports/``; the script is written beside it. ``proxies``
    are variables for one that has the network. Raises: ToolError with the end of the log, its
    control characters quoted, ToolTimeoutError, ArchiveError when the tree has something else than
    a folder where a mount is needed, UsageError.
    """
    require_root(f"the script of {script.name}")
    require_programs(root)
    _write_script(imports / "run", script.content)
    binds = [(str(imports.resolve()), "/stacker")]
    program = [sys.executable, "-I", "-S", str(Path(confine.__file__))]
    with ExitStack() as stack:
        for name in MOUNT_POINTS:
            stack.enter_context(_folder(root, name))
        if script.network and stack.enter_context(_resolver(root)):
            binds.append((str(Path(RESOLVER).resolve()), RESOLVER))
        command = sandbox_command(script, program, root.resolve(), binds, environment)
        with log.open("wb") as file:
            result = perform(
                command, stdout=file, stderr=file, more=proxies if script.network else None
            )
    require_good(script, result.status, _tail(log), log)


def _write_script(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)


@contextmanager
def _folder(root: Path, name: str) -> Iterator[None]:
    """Have a real folder ``name`` in ``root`` for the length of the block, never through a link."""
    path = root / name
    try:
        path.mkdir(mode=0o755)
        made = True
    except FileExistsError:
        made = False
    if not stat.S_ISDIR(path.lstat().st_mode):
        raise ArchiveError(f"the image has something else than a folder at /{name}")
    try:
        yield
    finally:
        if made:
            _remove_empty(path)


def _remove_empty(path: Path) -> None:
    try:
        path.rmdir()
    except OSError as error:
        # The script put something there on purpose, or took the folder away: both are its right.
        if error.errno not in {errno.ENOTEMPTY, errno.ENOENT, errno.ENOTDIR}:
            raise


@contextmanager
def _resolver(root: Path) -> Iterator[bool]:
    """Have an empty file to mount over at ``/etc/resolv.conf``; what the image had comes back."""
    folder = root / "etc"
    path = folder / "resolv.conf"
    aside = folder / ".resolv.conf.machineos"
    real = folder.exists() and stat.S_ISDIR(folder.lstat().st_mode)
    if not real or not Path(RESOLVER).exists() or aside.is_symlink() or aside.exists():
        yield False
        return
    had = path.is_symlink() or path.exists()
    if had:
        path.rename(aside)
    path.touch(mode=0o644, exist_ok=False)
    try:
        yield True
    finally:
        path.unlink(missing_ok=True)
        if had:
            aside.rename(path)


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL))
        return printable(file.read().decode("utf-8", "replace").rstrip())
