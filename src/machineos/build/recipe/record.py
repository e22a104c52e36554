"""What was proved here of layers, so that none is read twice for the same question.

A statement is a few words; the file named by their digest holds them. Invariant: there is a file
only for what this program found to be so, of bytes that a digest names. Whether an image says that
it was made by us counts for nothing.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from machineos.core.digest import Digest
from machineos.core.files import read_bounded, write_atomic
from machineos.errors import MachineOSError

if TYPE_CHECKING:
    from pathlib import Path

Statement = tuple[str, ...]
_LIMIT = 1 << 20


class Record:
    """The statements in ``folder``, which only its user may write to; it is made when needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def knows(self, statement: Statement) -> bool:
        """Whether this was proved before."""
        data = msgspec.json.encode(statement)
        try:
            return read_bounded(self._path(data), _LIMIT) == data
        except (MachineOSError, OSError):
            return False

    def note(self, statement: Statement) -> None:
        """Keep what was proved; where nothing can be kept it will be proved again."""
        data = msgspec.json.encode(statement)
        path = self._path(data)
        with suppress(MachineOSError, OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(path, data, mode=0o600)

    def _path(self, data: bytes) -> Path:
        name = Digest.of(data).hex
        return self._folder / name[:2] / name
