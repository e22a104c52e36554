"""The service manager: makes what runs equal to what was handed over, as often as it is asked.

Everything is decided in ``plan``; here phases are given to a runner, and what cannot go on is
reported and left behind: a service alone, or one errand. What is there already and is the same is
left alone, so a restarted mosd starts nothing twice and leaks nothing; what is no longer wanted is
stopped and unmounted, and so is a service that may not run any more.

Everything but the volumes lies on a tmpfs: at each boot we begin with nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.core.steps import Runner
from machineos.errors import MachineOSError
from machineos.service.plan import machine, service, settled, steps
from machineos.service.plan.facts import Progress, World
from machineos.service.plan.status import status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from machineos.core.steps import Step
    from machineos.document.between.handover import Handover, Service
    from machineos.document.between.status import ServiceStatus
    from machineos.host.unit.systemctl import UnitState
    from machineos.service.plan.facts import Policy
    from machineos.service.plan.host import Host
    from machineos.service.plan.machine import Errand

# A ValueError is what Python says to a path with a zero byte.
_FAILURES = (MachineOSError, OSError, ValueError)


def performing(host: Host) -> Callable[[Step[object]], object]:
    """Return the function that takes one step of this plan on ``host``."""

    def perform(step: Step[object]) -> object:
        if not isinstance(step, steps.Act):
            raise TypeError(f"{type(step).__name__} is no step of a service")
        return step.on(host)

    return perform


class Manager:
    """Runs the services of one hand-over. ``perform`` takes a step, ``watch`` hears of each fault
    point (``core.steps``)."""

    def __init__(
        self,
        handover: Handover,
        policy: Policy,
        perform: Callable[[Step[object]], object],
        *,
        watch: Callable[[str], None] = lambda _point: None,
    ) -> None:
        self._world = World(handover, policy)
        self._machine: Runner[World] = Runner(perform, watch=watch)
        self._service: Runner[Progress] = Runner(perform, watch=watch)

    @property
    def problems(self) -> tuple[str, ...]:
        """What went wrong apart from single services."""
        return self._world.problems

    @property
    def units(self) -> tuple[str, ...]:
        """The units whose state belongs into the status."""
        return tuple(one.service.id.unit for one in machine.startable(self._world))

    def status(self, states: Mapping[str, UnitState]) -> tuple[ServiceStatus, ...]:
        """Return the state of every service; ``states`` is what systemd says of ``units``."""
        return status(self._world, states)

    def reconcile(self) -> None:
        """Make what runs equal to what was handed over. Failures are kept for ``status``.

        Raises: ToolError, OSError (not even our own folders can be made).
        """
        world = World(self._world.handover, self._world.policy)
        world = self._machine.run(machine.BEGIN, world)
        for errand in machine.clearing(world):
            world = self._try(errand, world)
        for item in world.handover.services:
            world = self._one(item, world)
        for errand in machine.FINISH:
            world = self._try(errand, world)
        self._world = world

    def settle(self) -> None:
        """Do what had to wait until the services had started. Failures are kept for ``status``."""
        for errand in settled.SETTLED:
            self._world = self._try(errand, self._world)

    def _one(self, item: Service, world: World) -> World:
        """Bring one service to the point where its unit can start, or say why it cannot."""
        progress = machine.begin(world, item)
        if not progress.why:
            try:
                progress = self._service.run(service.PHASES, progress)
            except _FAILURES as error:
                progress = progress.refused(str(error))
        if progress.why:
            self._say(f"{item.name}: refused: {progress.why}")
            world = self._try(machine.stopping(item), world)
        return world.with_service(progress)

    def _try(self, errand: Errand, world: World) -> World:
        try:
            return self._machine.run(errand.phases, world, given=errand.given)
        except _FAILURES as error:
            self._say(f"{errand.what}: failed: {error}")
            return world.with_problem(f"{errand.what}: {error}")

    def _say(self, text: str) -> None:
        self._machine.take(steps.Say(text))
