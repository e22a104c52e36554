"""mosd: reconcile once, say ready, then watch.

systemd restarts services; mosd only looks, often while something is starting and seldom after, and
writes what it sees. A look is a program that the loop waits for, beside whatever else it waits for.
mosd ends on SIGTERM and leaves every service running: they are units of their own, and at a
shutdown systemd stops them itself.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from machineos.core.files import atomic
from machineos.document.between import status as report
from machineos.errors import MachineOSError
from machineos.host.unit import systemctl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from machineos.core.clock import Clock
    from machineos.core.command import Command, Result
    from machineos.daemon.loop import Loop
    from machineos.document.between.handover import Handover
    from machineos.document.between.status import ServiceStatus, Status
    from machineos.host.unit.systemctl import UnitState
    from machineos.service.act.manager import Manager

_OFTEN = 0.5
_SELDOM = 5.0
# What waits for the services waits until they have run for so long, since they have only begun to
# work when systemd calls them active, and never longer than this after our own start.
_CALM, _LATEST = 30.0, 120.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Daemon:
    """What mosd does, and what it needs for that. ``show`` is the call of a look."""

    def __init__(
        self,
        manager: Manager,
        handover: Handover,
        *,
        loop: Loop,
        show: Callable[[Sequence[str]], Command],
        status_path: Path,
        notify: Callable[[str], None],
        log: Callable[[str], None],
        clock: Clock,
    ) -> None:
        self._manager = manager
        self._handover = handover
        self._loop = loop
        self._show = show
        self._status_path = status_path
        self._notify = notify
        self._log = log
        self._clock = clock
        self._began = 0.0
        self._last: dict[str, str] = {}
        self._ready = False
        self._ending = False
        self._calm_since = float("inf")
        self._settled = False

    def run(self) -> None:
        """Work until SIGTERM or SIGINT. Raises: ToolError (systemd cannot be told we are ready)."""
        generation, services = self._handover.generation[:12], len(self._handover.services)
        self._log(f"generation {generation} with {services} services")
        with self._loop.signals(SIGNALS, self._end):
            self._began = self._clock.monotonic()
            self._manager.reconcile()
            self._look()
            self._loop.run()
        self._loop.close()
        self._notify("STOPPING=1")
        self._log("stopping; services stay as they are")

    def _end(self) -> None:
        """Stop, but not before the status was written once: mosctl always finds one."""
        self._ending = True
        if self._ready:
            self._loop.stop()

    def _look(self) -> None:
        units = self._manager.units
        if units:
            self._loop.start(self._show(units), self._looked)
        else:
            self._after(self._saw({}))

    def _looked(self, outcome: Result | MachineOSError) -> None:
        """Write what was seen; when systemd does not answer, the file stays as it was and the next
        look may succeed."""
        try:
            if isinstance(outcome, MachineOSError):
                raise outcome
            status = self._saw(systemctl.parse_show(outcome.text))
        except MachineOSError as error:
            self._log(f"cannot see the services: {error}")
            status = None
        self._after(status)

    def _after(self, status: Status | None) -> None:
        if not self._ready:
            self._notify("READY=1")
            self._ready = True
        if self._ending:
            self._loop.stop()
            return
        settled = status is None or status.settled
        self._settle(calm=settled)
        self._loop.after(_SELDOM if settled else _OFTEN, self._look)

    def _settle(self, *, calm: bool) -> None:
        """Do what waits for the services, once, when it is time; ``calm``: none is starting."""
        now = self._clock.monotonic()
        self._calm_since = min(self._calm_since, now) if calm else float("inf")
        due = now - self._calm_since >= _CALM or now - self._began >= _LATEST
        if due and not self._settled:
            self._settled = True
            self._manager.settle()

    def _saw(self, states: Mapping[str, UnitState]) -> Status:
        services = self._manager.status(states)
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
