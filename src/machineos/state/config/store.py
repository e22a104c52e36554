"""The git store of the configuration volume: ``/config/manifest.git``, work tree ``/config``.

Invariant: a commit is durable (objects, ref and folders) before it is reported. Nothing here is
trusted because it is here: readers verify signatures again.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from machineos.core.files import atomic, fsync_folder, fsync_tree, write_atomic
from machineos.core.paths import safe_join
from machineos.errors import ConflictError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from machineos.core.files import Sync
    from machineos.core.secret import Secret

GIT_FOLDER = "manifest.git"
BRANCH = "refs/heads/master"
_NAME, _MAIL = "machine", "root@machine.local"


def create_store(
    folder: Path,
    files: Mapping[str, bytes],
    *,
    message: str,
    seconds: int,
    sync: Sync = os.fsync,
) -> str:
    """Make a new store whose first commit holds ``files`` and return the commit's name.

    ``seconds`` is the time of the commit. Until this returns there is no store: whoever is cut off
    here makes the volume anew. Raises: ConflictError when there is a store already.
    """
    import pygit2

    if (folder / GIT_FOLDER).exists():
        raise ConflictError(f"{folder} holds a configuration store already")
    repository = pygit2.init_repository(str(folder / GIT_FOLDER), bare=True, initial_head="master")
    for name, data in files.items():
        write_atomic(safe_join(folder, name), data, mode=0o640)
    builder = repository.TreeBuilder()
    for name, data in sorted(files.items()):
        builder.insert(name, repository.create_blob(data), pygit2.enums.FileMode.BLOB)
    author = pygit2.Signature(_NAME, _MAIL, seconds, 0)
    commit = repository.create_commit(BRANCH, author, author, message, builder.write(), [])
    # All of it: libgit2 never syncs HEAD and config of a new repository, whatever it is told.
    fsync_tree(folder / GIT_FOLDER, sync=sync)
    fsync_folder(folder, sync=sync)
    return str(commit)


def write_beside(
    folder: Path, name: str, data: Secret, *, mode: int, sync: Sync = os.fsync
) -> None:
    """Write a file that no commit holds into ``folder``, durably. Raises: OSError, SpaceError."""
    with atomic(safe_join(folder, name), mode=mode, sync=sync) as file:
        file.write(data.view())
