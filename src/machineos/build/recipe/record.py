"""What was found here about images, so that nothing is read twice for the same question.

A question is a few words; the file named by their digest holds them and the answer. Invariant:
there is a file only for what this program found, of bytes that a digest names. Whether an image
says that it was made by us counts for nothing.
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

Question = tuple[str, ...]
YES = "yes"
_LIMIT = 1 << 20


class Record:
    """The answers in ``folder``, which only its user may write to; it is made when needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def answer(self, question: Question) -> str | None:
        """Return what was found before, None when nobody asked."""
        path = self._path(question)
        try:
            asked, found = msgspec.json.decode(
                read_bounded(path, _LIMIT), type=tuple[Question, str]
            )
        except (MachineOSError, OSError, msgspec.MsgspecError):
            return None
        return found if asked == question else None

    def note(self, question: Question, found: str = YES) -> None:
        """Keep what was found; where nothing can be kept it will be found again."""
        path = self._path(question)
        with suppress(MachineOSError, OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(path, msgspec.json.encode((question, found)), mode=0o600)

    def _path(self, question: Question) -> Path:
        name = Digest.of(msgspec.json.encode(question)).hex
        return self._folder / name[:2] / name
