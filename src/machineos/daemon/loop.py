"""The main loop of mosd: reconcile once, say ready, then watch.

systemd restarts services; mosd only looks, often while something is starting and seldom after, and
writes what it sees. It ends on SIGTERM and leaves every service running: they are units of their
own, and at a shutdown systemd stops them itself.
"""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

from machineos.core.files import atomic
from machineos.document.between import status as report
from machineos.errors import MachineOSError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from machineos.core.clock import Clock
    from machineos.document.between.handover import Handover
    from machineos.document.between.status import ServiceStatus, Status
    from machineos.service.act.manager import Manager

_OFTEN = 0.5
_SELDOM = 5.0
_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})


class Daemon:
    """The loop and what it needs."""

    def __init__(
        self,
        manager: Manager,
        handover: Handover,
        *,
        status_path: Path,
        notify: Callable[[str], None],
        log: Callable[[str], None],
        clock: Clock,
    ) -> None:
        self._manager = manager
        self._handover = handover
        self._status_path = status_path
        self._notify = notify
        self._log = log
        self._clock = clock
        self._last: dict[str, str] = {}

    def run(self) -> None:
        """Work until SIGTERM or SIGINT. Raises: ToolError (systemd cannot be told we are ready)."""
        generation, services = self._handover.generation[:12], len(self._handover.services)
        self._log(f"generation {generation} with {services} services")
        with _blocked():
            self._manager.reconcile()
            status = self.observe()
            self._notify("READY=1")
            while True:
                seconds = _SELDOM if status is None or status.settled else _OFTEN
                if signal.sigtimedwait(_SIGNALS, seconds) is not None:
                    break
                status = self.observe()
        self._notify("STOPPING=1")
        self._log("stopping; services stay as they are")

    def observe(self) -> Status | None:
        """Look at every service, write the status file, log what changed; None if systemd does
        not answer, in which case the file stays as it was and the next look may succeed."""
        try:
            services = self._manager.status()
        except MachineOSError as error:
            self._log(f"cannot see the services: {error}")
            return None
        for service in services:
            self._log_change(service)
        status = report.summarise(
            generation=self._handover.generation,
            product=self._handover.product,
            updated=self._clock.now().isoformat(timespec="seconds"),
            problems=self._manager.problems,
            services=services,
        )
        with atomic(self._status_path, durable=False) as file:  # /run is memory
            file.write(report.encode(status))
        return status

    def _log_change(self, service: ServiceStatus) -> None:
        line = f"{service.state}{': ' if service.why else ''}{service.why}"
        if self._last.get(service.name) != line:
            self._last[service.name] = line
            self._log(f"{service.name}: {line}")


@contextmanager
def _blocked() -> Iterator[None]:
    """Hold our signals back, so that they are seen only where we wait for them.

    A step of ``reconcile`` is never cut in half. The programs we start inherit this; they are short
    and have timeouts.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
