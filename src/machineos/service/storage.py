"""Where the volumes of services are. For now one folder per label on the machine's data volume.

Sizes are not enforced and nothing is encrypted here yet: that is the storage service's part.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Protocol

from machineos.core.files import safe_join
from machineos.errors import ConflictError, DocumentError, Fault

if TYPE_CHECKING:
    from pathlib import Path


class StorageProvider(Protocol):
    """Gives out the folders that services write to."""

    def provide(self, label: str, *, uid: int, gid: int) -> Path:
        """Return the folder of a label, made with this owner if it is new.

        Raises: DocumentError, ConflictError.
        """
        ...


class FolderStorage:
    """A folder per label under ``root``, mode 0700."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def provide(self, label: str, *, uid: int, gid: int) -> Path:
        """Return the folder of ``label``. What is in it, and its owner, are left as they are."""
        try:
            path = safe_join(self._root, label)
        except ValueError as error:
            raise DocumentError("storage", [Fault("label", 0, str(error))]) from error
        # The root is on the path to every volume, so containers must be able to pass it.
        self._root.mkdir(mode=0o711, parents=True, exist_ok=True)
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            if not stat.S_ISDIR(path.lstat().st_mode):
                raise ConflictError(f"storage {label}: {path} is not a folder") from None
        else:
            os.chown(path, uid, gid, follow_symlinks=False)
        return path
