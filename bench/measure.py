"""Whole processes, timed from outside, ours and the other tool's in turn.

Owns what one measurement is. Invariant: both sides of a pair are measured within the same minutes
by the same code, and every sample is kept; the figure is the median of the ratios of the pairs, so
that a machine that is busy or slow for a while bears on both sides.
"""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.core.run import run
from machineos.errors import ToolError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_TIMEOUT = 1800.0
_STOPWATCH = Path(__file__).with_name("stopwatch.py")
_FIGURES = ("wall", "cpu", "memory")


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
    settle: bool = True,
) -> Sample:
    """Run a program to its end and return what it took; its output goes to ``log``.

    ``settle`` first writes to the disk what earlier runs left to write.
    Raises: ToolError when it fails or takes longer than ``timeout`` seconds.
    """
    if settle:
        os.sync()
    figures = log.with_suffix(".figures")
    figures.unlink(missing_ok=True)
    with log.open("wb") as output:
        watch: list[str | Path] = ["/usr/bin/python3", "-I", "-S", _STOPWATCH, figures]
        result = run(
            [*watch, *argv], stdout=output, stderr=output, timeout=timeout, env=env, cwd=cwd,
            check=False,
        )  # fmt: skip
    words = figures.read_text("ascii").split() if figures.is_file() else []
    tail = log.read_bytes()[-2000:].decode("utf-8", "replace")
    if result.status != 0 or len(words) != len(_FIGURES):
        raise ToolError(f"{' '.join(map(str, argv))}: failed: {tail}")
    return Sample(float(words[0]), float(words[1]), float(words[2]) / 1024)


def alternate(
    ours: Callable[[], Sample],
    peer: Callable[[], Sample],
    *,
    pairs: int,
    warm: bool,
    say: Callable[[str], None],
) -> tuple[Pair, ...]:
    """Measure ours, theirs, ours, theirs ...; with ``warm`` the first pair is thrown away."""
    found: list[Pair] = []
    for number in range(pairs + warm):
        pair = Pair(ours(), peer())
        throw = warm and number == 0
        say(
            f"  {'warm-up' if throw else f'pair {number + 1 - warm}'}: "
            f"ours {pair.ours.wall:.2f} s, theirs {pair.peer.wall:.2f} s, ratio {pair.ratio:.2f}"
        )
        if not throw:
            found.append(pair)
    return tuple(found)
