from __future__ import annotations

from datetime import UTC, timedelta

from machineos.core.clock import SystemClock
from waiting import PATIENCE


def test_the_system_clock() -> None:
    clock = SystemClock()
    wall, before = clock.now(), clock.monotonic()
    clock.sleep(0.02)
    assert wall.tzinfo is UTC
    assert 0.02 <= clock.monotonic() - before < PATIENCE
    assert timedelta(0) <= clock.now() - wall < timedelta(seconds=PATIENCE)
