"""Boot files on the EFI partition and entries in the firmware's variables, for real.

FAT knows no rename that is atomic, so nothing is ever renamed over anything here: a new file in a
new folder, the file, its folder and all folders above on the disk, then whatever names it.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from machineos.core.digest import Digest
from machineos.core.files import fsync_folder, needing_space
from machineos.core.run import perform
from machineos.host.disk import direct
from machineos.host.efi import efibootmgr

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from machineos.core.command import Command, Result
    from machineos.core.files import Sync

    Run = Callable[[Command], Result]


def copy_file(source: Path, root: Path, name: str, *, sync: Sync = os.fsync) -> Digest:
    """Copy ``source`` to ``name`` below ``root``, durably, and return the digest of what was
    written. Raises: OSError, SpaceError."""
    target = root / name
    data = source.read_bytes()
    with needing_space(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            file.write(data)
            file.flush()
            sync(file.fileno())
    for folder in target.parents:
        fsync_folder(folder, sync=sync)
        if folder == root:
            break
    return Digest.of(data)


def read_back(root: Path, name: str) -> Digest:
    """Return the digest of what the disk has as ``name`` below ``root``. Raises: OSError."""
    hasher = hashlib.sha256()
    with direct.opened(root / name) as descriptor:
        for chunk in direct.read_chunks(descriptor):
            hasher.update(chunk)
    return Digest("sha256", hasher.hexdigest())


def list_entries(*, run: Run = perform) -> tuple[efibootmgr.BootEntry, ...]:
    """Return the boot entries of this machine. Raises: ToolError."""
    return efibootmgr.parse_entries(run(efibootmgr.list_command()).text)


def delete_entry(number: str, *, run: Run = perform) -> None:
    """Remove a boot entry. Raises: ToolError."""
    run(efibootmgr.delete_command(number))


def create_entry(
    disk: Path, partition: int, description: str, loader: str, *, run: Run = perform
) -> None:
    """Add a boot entry in front of the boot order. Raises: ToolError."""
    run(efibootmgr.create_command(disk, partition, description=description, loader=loader))
