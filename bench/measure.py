"""Whole processes, timed from outside, ours and the other tool's in turn.

Owns what one measurement is. Invariant: both sides of a pair are measured within the same minutes
by the same code, and every sample is kept; the figure is the median of the ratios of the pairs, so
that a machine that is busy or slow for a while bears on both sides.
"""

from __future__ import annotations

import os
import signal
import statistics
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.core.run import spawn
from machineos.errors import ToolError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_TIMEOUT = 1800.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: seconds by the clock, seconds of processor (user and system), and the largest
    resident size of one of its processes in MiB. 0 where it was not measured."""

    wall: float
    cpu: float = 0.0
    memory: float = 0.0

    def then(self, other: Sample) -> Sample:
        """Return this run followed by another one, as one."""
        return Sample(self.wall + other.wall, self.cpu + other.cpu, max(self.memory, other.memory))


@dataclass(frozen=True, slots=True)
class Pair:
    """Our run and the other tool's, one after the other."""

    ours: Sample
    peer: Sample

    @property
    def ratio(self) -> float:
        """Our time in units of the other tool's."""
        return self.ours.wall / self.peer.wall


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, smallest and largest of some values."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def show(self, digits: int = 2) -> str:
        """Return ``median (least to most)``."""
        return f"{self.median:.{digits}f} ({self.least:.{digits}f} to {self.most:.{digits}f})"


def timed(
    argv: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = _TIMEOUT,
) -> Sample:
    """Run a program to its end and return what it took; its output goes to ``log``.

    Raises: ToolError when it fails or takes longer than ``timeout`` seconds.
    """
    os.sync()  # what earlier runs left to write must not be written during this one
    with log.open("wb") as output:
        start = time.perf_counter()
        process = spawn(list(argv), log=output, env=env, cwd=cwd)
        timer = threading.Timer(timeout, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            timer.cancel()
        wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)  # it was waited for here
    if process.returncode != 0:
        tail = log.read_bytes()[-2000:].decode("utf-8", "replace")
        raise ToolError(f"{' '.join(map(str, argv))}: status {process.returncode}: {tail}")
    return Sample(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def alternate(
    ours: Callable[[], Sample],
    peer: Callable[[], Sample],
    *,
    pairs: int,
    warm: bool = True,
    say: Callable[[str], None],
) -> tuple[Pair, ...]:
    """Measure ours, theirs, ours, theirs ...; with ``warm`` the first pair is thrown away."""
    found: list[Pair] = []
    for number in range(pairs + warm):
        pair = Pair(ours(), peer())
        throw = warm and number == 0
        say(
            f"  {'warm-up' if throw else f'pair {number + 1 - warm}'}: ours {pair.ours.wall:.2f} s, "
            f"theirs {pair.peer.wall:.2f} s, ratio {pair.ratio:.2f}"
        )
        if not throw:
            found.append(pair)
    return tuple(found)
