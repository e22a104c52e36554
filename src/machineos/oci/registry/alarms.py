"""Calls at a time to come, unless they are called off before: one thread for all of a process.

Each exchange with a registry has several time limits and nearly none is ever reached; a thread for
each would cost more than the exchange.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from machineos.core.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

_IDLE = 1.0  # seconds that the thread stays with nothing to wait for


class Alarm:
    """One call to come. Equal to nothing but itself."""

    def __init__(self, alarms: Alarms, act: Callable[[], object]) -> None:
        self._alarms = alarms
        self.act = act

    def cancel(self) -> bool:
        """Call it off; return whether that came in time: if not, it was made, or is being made."""
        return self._alarms.remove(self)


class Alarms:
    """The calls to come, and the thread that makes them. A call has to be quick and must not raise.

    The seconds are real ones, as those of a socket's own time limit are.
    """

    def __init__(self) -> None:
        self._clock = SystemClock()
        self._changed = threading.Condition()
        self._times: dict[Alarm, float] = {}
        self._wakes = 0.0
        self._thread: threading.Thread | None = None

    def after(self, seconds: float, act: Callable[[], object]) -> Alarm:
        """Call ``act`` in that many seconds."""
        alarm = Alarm(self, act)
        with self._changed:
            at = self._times[alarm] = self._clock.monotonic() + seconds
            if self._thread is None or not self._thread.is_alive():  # a fork has no other thread
                self._thread = threading.Thread(target=self._work, name="oci-alarms", daemon=True)
                self._thread.start()
            elif at < self._wakes:
                self._changed.notify()
        return alarm

    def remove(self, alarm: Alarm) -> bool:
        """Forget ``alarm``; return whether it was still to come."""
        with self._changed:
            return self._times.pop(alarm, None) is not None

    def _work(self) -> None:
        while (due := self._due()) is not None:
            for alarm in due:
                alarm.act()

    def _due(self) -> list[Alarm] | None:
        """Wait, and take what is due out of the calls to come; None to end the thread."""
        with self._changed:
            now = self._clock.monotonic()
            self._wakes = min(self._times.values(), default=now + _IDLE)
            if self._wakes > now and not self._changed.wait(self._wakes - now) and not self._times:
                self._thread = None
                return None
            now = self._clock.monotonic()
            due = [alarm for alarm, at in self._times.items() if at <= now]
            due.sort(key=self._times.__getitem__)
            for alarm in due:
                del self._times[alarm]
            return due


ALARMS = Alarms()
