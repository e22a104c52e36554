"""What is said of a service."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from machineos.document.between.status import ServiceStatus
from machineos.document.model.install import Network, Port
from machineos.host.unit.systemctl import UnitState
from machineos.service.plan.facts import Progress, World
from machineos.service.plan.status import status
from unit.service.bed import POLICY, Bed
from unit.service.plan.cases import PLAIN, SIMPLE

BED = Bed()
UNIT = "machineos-web.service"
SERVICE = BED.service(
    "web",
    network=Network(
        type="simple",
        ports=(Port(host=80, container=5000), Port(host=53, container=5353, protocol="udp")),
    ),
)
RUNS = Progress(
    service=SERVICE,
    handover=BED.handover(),
    policy=POLICY,
    spec=replace(PLAIN, network=SIMPLE),
    notes=("note",),
)


def state(active: str, **changes: object) -> UnitState:
    found = UnitState(UNIT, "loaded", active, "sub", "success", 2, 412, "1", 7)
    return replace(found, **changes)


def one(progress: Progress, *states: UnitState) -> ServiceStatus:
    world = World(BED.handover(), POLICY, services=(progress,))
    (found,) = status(world, {each.name: each for each in states})
    return found


def test_a_service_that_runs() -> None:
    assert one(RUNS, state("active")) == ServiceStatus(
        name="web",
        version="1.0",
        state="running",
        why="",
        unit=UNIT,
        pid=412,
        restarts=2,
        nsgroup="web",
        hostid=165536,
        network="simple",
        addresses=("10.0.3.99", "fd6d:6f73:3000:3::63"),
        ports=("80->5000/tcp", "53->5353/udp"),
        notes=("note",),
    )


@pytest.mark.parametrize(
    ("now", "expected", "why"),
    [
        (state("active"), "running", ""),
        (state("activating", restarts=0), "starting", ""),
        (state("activating"), "starting", "restarting after success (exit status 7)"),
        (state("reloading"), "starting", "restarting after success (exit status 7)"),
        (state("activating", result=""), "starting", "restarting after failure (exit status 7)"),
        (
            state("failed", result="exit-code"),
            "failed",
            f"exit-code (exit status 7); see: journalctl -u {UNIT}",
        ),
        (state("inactive"), "stopped", "ended with status 7"),
        (state("deactivating"), "stopped", "ended with status 7"),
    ],
)
def test_what_systemd_says_of_its_unit(now: UnitState, expected: str, why: str) -> None:
    found = one(RUNS, now)
    assert (found.state, found.why) == (expected, why)
    assert (found.unit, found.pid, found.restarts) == (UNIT, 412, now.restarts)


def test_a_unit_that_systemd_does_not_know() -> None:
    found = one(RUNS, state("active", name="machineos-other.service"))
    assert (found.state, found.why) == ("failed", "systemd does not know its unit")
    assert (found.unit, found.pid, found.restarts) == (UNIT, 0, 0)


def test_a_refused_service_has_neither_unit_nor_address() -> None:
    found = one(RUNS.refused("no command"), state("active"))
    assert (found.state, found.why) == ("refused", "no command")
    assert (found.unit, found.pid, found.restarts, found.addresses) == ("", 0, 0, ())
    assert found.ports == ("80->5000/tcp", "53->5353/udp")


def test_a_service_that_is_only_mounted() -> None:
    plain = replace(SERVICE, network=Network(type="none", ports=None), nsgroup="", hostid=0)
    found = one(replace(RUNS, service=plain, spec=None, notes=()))
    assert found == ServiceStatus(name="web", version="1.0", state="mounted")


def test_a_network_without_addresses() -> None:
    found = one(replace(RUNS, spec=PLAIN), state("active"))
    assert found.addresses == ()


def test_the_order_is_that_of_the_handover() -> None:
    names = ("b", "a")
    services = tuple(replace(RUNS, service=BED.service(name)) for name in names)
    world = World(BED.handover(), POLICY, services=services)
    assert [each.name for each in status(world, {})] == ["b", "a"]
