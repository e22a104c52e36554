"""A clock that stands, for tests of what depends on time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from vectors.certificates import NOW


@dataclass(frozen=True)
class FixedClock:
    """A clock that stands."""

    at: datetime = NOW

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        pass
