"""Waiting in tests: for what happens, never for a length of time.

A test that sleeps, or that gives up after a few seconds, fails on a busy machine. Whoever waits
here goes on as soon as the condition holds, and gives up when it cannot come true any more (the
process that should make it true has ended) or after ``PATIENCE``, which only a hang reaches.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

PATIENCE = 120.0
_FIRST, _LONGEST = 0.002, 0.1


class Pollable(Protocol):
    """A child of the test: ``subprocess.Popen`` and what is like it."""

    def poll(self) -> int | None:
        """Return the exit status, None while it runs."""
        ...


def wait_for(
    condition: Callable[[], T],
    *,
    during: Pollable | None = None,
    what: str = "",
    patience: float = PATIENCE,
) -> T:
    """Return the first answer of ``condition`` that is true.

    ``during`` is the process that has to make it true: when it has ended and the condition still
    does not hold, there is nothing to wait for. ``what`` is said when it does not come.
    Raises: AssertionError.
    """
    limit = time.monotonic() + patience
    pause = _FIRST
    while True:
        ended = during is not None and during.poll() is not None
        answer = condition()
        if answer:
            return answer
        assert not ended, f"the process has ended first: {what or condition}"
        assert time.monotonic() < limit, f"not within {patience:g} s: {what or condition}"
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST)
