"""A call of another program, as a value: what an adapter decides and ``core.run`` carries out.

Nothing here starts anything. Invariant: two equal commands do the same thing, so a test that
compares commands has seen all that a program is told. A secret is never part of one: it goes
through ``input`` of ``core.run.run``, or through a descriptor whose number is in ``pass_fds``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pathlib import Path


class Command(msgspec.Struct, frozen=True):
    """One call. ``timeout`` is in seconds; ``env`` is added to the fixed environment.

    ``success`` lists the exit codes that are no error; None when every status is an answer.
    """

    argv: tuple[str, ...]
    timeout: float
    input: bytes | None = None
    env: tuple[tuple[str, str], ...] = ()
    cwd: Path | None = None
    pass_fds: tuple[int, ...] = ()
    success: tuple[int, ...] | None = (0,)


class Result(msgspec.Struct, frozen=True):
    """What a program left: exit status and what was captured (empty where it was redirected)."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes

    @property
    def text(self) -> str:
        """Standard output as text without the final newline."""
        return self.stdout.decode("utf-8", "replace").rstrip("\n")

    @property
    def complaint(self) -> str:
        """Standard error as text without space at its ends."""
        return self.stderr.decode("utf-8", "replace").strip()
