"""The phases of the whole machine: folders, addresses, forwarded ports, starting."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path

import pytest
from msgspec.structs import replace

from machineos.core.digest import Digest
from machineos.core.steps import Answers, check_order
from machineos.document.between.handover import Service
from machineos.document.model.install import Network, Port
from machineos.document.state.leases import NO_LEASES, Lease, Leases
from machineos.errors import OrderError
from machineos.host.unit.systemctl import UnitState
from machineos.service.plan import machine, removal, ruleset, steps
from machineos.service.plan.facts import Progress, World, known
from machineos.service.plan.host import Around
from machineos.service.plan.network import Attachment
from unit.service.bed import FOLDERS, POLICY, Bed
from unit.service.plan.cases import PLAIN

BED = Bed()
BUILT = BED.image()
SIMPLE = Network(type="simple", ports=(Port(host=80, container=5000),))


def item(name: str, **changes: object) -> Service:
    return BED.service(name, BUILT, **changes)


def world(*services: Service, around: Around | None = None, **changes: object) -> World:
    found = World(BED.handover(*services), POLICY, around=around or Around())
    return replace(found, **changes)


def planned(*services: Service, leases: bytes | None = None) -> World:
    return machine.Addresses().learn(world(*services, around=Around(leases=leases)), Answers(()))


def progress(name: str, *, runs: bool = True, **changes: object) -> Progress:
    service = item(name)
    spec = replace(PLAIN, id=service.id) if runs else None
    found = Progress(service=service, handover=BED.handover(), policy=POLICY, spec=spec)
    return replace(found, **changes)


def state(name: str, active: str, *, stale: bool = False) -> UnitState:
    unit = f"machineos-{name}.service"
    return UnitState(unit, "loaded", active, "", "success", 0, 0, "", 0, stale)


def test_the_order_of_the_phases() -> None:
    everything = (*machine.BEGIN, *(phase for errand in machine.FINISH for phase in errand.phases))
    assert [(phase.name, sorted(phase.needs), sorted(phase.gives)) for phase in everything] == [
        ("look around", [], ["what is there"]),
        ("give addresses", ["what is there"], ["network"]),
        ("keep the leases", ["network", "what is there"], ["leases"]),
        ("build the walls", ["network", "services"], ["walls"]),
        ("see the links", ["walls"], ["links"]),
        ("forward ports", ["links", "walls"], ["forwarding"]),
        ("see the units", ["services"], ["units"]),
        ("start services", ["units"], ["started"]),
    ]
    check_order(everything, given=machine.SERVICES)
    with pytest.raises(
        OrderError, match="phase build the walls comes before what it needs: services"
    ):
        check_order(everything)
    for errand in machine.FINISH:
        check_order(errand.phases, given=errand.given)
    assert [errand.what for errand in machine.FINISH] == ["forwarding ports", "starting services"]


def test_the_folders_let_containers_pass_to_their_roots_alone() -> None:
    assert machine.Looking().plan(world()) == (
        steps.MakeFolder(Path("/run/systemd/system"), 0o755),
        steps.MakeFolder(Path("/run/machineos"), 0o755),
        steps.MakeFolder(Path("/run/machineos/roots"), 0o711),
        steps.MakeFolder(Path("/run/machineos/images"), 0o700),
        steps.MakeFolder(Path("/run/machineos/lxc"), 0o711),
        steps.Look(FOLDERS),
    )
    around = Around(units=("x",))
    look = (steps.Look(FOLDERS), around)
    assert machine.Looking().learn(world(), Answers([look])).around == around
    assert FOLDERS.leases == Path("/run/machineos/leases.json")


def test_only_containers_have_a_network() -> None:
    found = planned(item("web", network=SIMPLE), item("files", type="fs-only"), item("none"))
    assert {str(name) for name, _ in known(found.network).attachments} == {"web", "none"}
    assert found.problems == ()


def test_leases_are_kept_and_written_when_they_change() -> None:
    first = planned(item("web", network=SIMPLE))
    leases = known(first.network).leases
    write = steps.WriteFile(FOLDERS.leases, leases.to_bytes(), 0o644)
    assert machine.LeasesKept().plan(first) == (write,)
    second = planned(item("web", network=SIMPLE), leases=leases.to_bytes())
    assert machine.LeasesKept().plan(second) == ()
    assert known(second.network).leases == leases
    # Nothing to keep, nothing there: nothing is written.
    assert machine.LeasesKept().plan(planned(item("none"))) == ()
    # Those who went away stay in it.
    third = planned(item("none"), leases=leases.to_bytes())
    assert machine.LeasesKept().plan(third) == ()
    # What cannot be read is replaced.
    bad = planned(item("none"), leases=b"x")
    assert machine.LeasesKept().plan(bad) == (
        steps.WriteFile(FOLDERS.leases, NO_LEASES.to_bytes(), 0o644),
    )
    (problem,) = bad.problems
    assert problem.startswith("addresses are chosen anew: leases: 1 fault")


def test_a_lease_decides_the_address() -> None:
    leases = Leases(1, (Lease("web", "10.0.3.77", "fd6d:6f73:3000:3::88"),))
    found = planned(item("web", network=SIMPLE), leases=leases.to_bytes())
    attached = known(found.network).attachment(item("web").id)
    assert attached == Attachment(
        "simple", IPv4Interface("10.0.3.77/24"), IPv6Interface("fd6d:6f73:3000:3::88/64")
    )


def test_ports_lead_to_services_that_can_run() -> None:
    other = Network(type="simple", ports=(Port(host=81, container=5000),))
    found = planned(item("web", network=SIMPLE), item("bad", network=other))
    found = replace(found, services=(progress("web"), progress("bad", runs=False, why="no")))
    forwards = [one for one in known(found.network).forwards if one.host == 80]
    assert len(forwards) == 1
    links = known(found.network).links({item("web").id})
    assert [link.port for link in links] == [item("web").id.link(forwards[0].ipv4)]
    # The bridge last: without the tables there is none.
    assert machine.Walls().plan(found) == (
        steps.ApplyRules(ruleset.render(forwards, links)),
        steps.MakeBridge("mos0", ("10.0.3.1/24", "fd6d:6f73:3000:3::1/64")),
    )
    assert machine.walls(forwards, links) == machine.Walls().plan(found)


def test_without_a_link_there_is_a_wall_and_no_bridge() -> None:
    found = replace(planned(item("web")), services=(progress("web"),))
    assert machine.Walls().plan(found) == (steps.ApplyRules(ruleset.render((), ())),)


@pytest.mark.parametrize("why", ["", "no"])
def test_routing_is_on_while_a_service_that_can_run_needs_it(why: str) -> None:
    on = not why
    services = (progress("web", runs=on, why=why),)
    found = replace(planned(item("web", network=SIMPLE)), services=services)
    ask = machine.LinksSeen().plan(found)
    assert ask == (
        steps.Switch("ipv4/conf/all/accept_redirects", False),
        steps.Switch("ipv4/conf/all/send_redirects", False),
        steps.Switch("ipv4/conf/default/forwarding", on),
        steps.ListLinks(),
    )
    names = ("eth0", "lo", "mos0", "mv0a000309")
    found = machine.LinksSeen().learn(found, Answers([(steps.ListLinks(), names)]))
    assert found.links == names
    # The bridge may be missing only where nothing needs it.
    assert machine.Forwarding().plan(found) == (
        steps.Switch("ipv4/conf/eth0/forwarding", on, optional=True),
        steps.Switch("ipv4/conf/mos0/forwarding", on, optional=True),
        steps.Switch("ipv6/conf/all/forwarding", on, optional=True),
        steps.Switch("ipv4/conf/mos0/route_localnet", on, optional=not on),
        steps.Switch("ipv4/conf/mos0/send_redirects", False, optional=not on),
    )


def started(*services: Progress, states: tuple[UnitState, ...] = ()) -> tuple[object, ...]:
    return machine.Starting().plan(world(services=services, states=states))


def test_units_that_systemd_cannot_know_are_not_asked_for() -> None:
    services = (
        progress("web", fresh=True),
        progress("b"),
        progress("a"),
        progress("files", runs=False),
    )
    found = world(services=services)
    show = steps.ShowUnits(("machineos-a.service", "machineos-b.service"))
    assert machine.UnitsSeen().plan(found) == (show,)
    states = (state("a", "active"),)
    assert machine.UnitsSeen().learn(found, Answers([(show, states)])).states == states
    only_new = world(services=services[:1])
    assert machine.UnitsSeen().plan(only_new) == ()
    assert machine.UnitsSeen().learn(only_new, Answers(())).states == ()


def test_what_is_new_is_started_without_a_question() -> None:
    names = ("machineos-web.service", "machineos-a.service")
    assert started(progress("web", fresh=True, changed=True), progress("a", fresh=True)) == (
        steps.Say("starting machineos-web.service, machineos-a.service"),
        steps.StartUnits(names),
    )
    assert started() == ()
    assert started(progress("files", runs=False, fresh=True)) == ()


@pytest.mark.parametrize("active", ["active", "activating", "reloading", "deactivating", "failed"])
def test_what_runs_or_has_failed_is_left_alone(active: str) -> None:
    assert started(progress("web"), states=(state("web", active),)) == ()


@pytest.mark.parametrize(
    ("changed", "states", "reload"),
    [
        (False, (state("web", "inactive"),), False),
        (False, (state("web", "inactive", stale=True),), True),
        (False, (), False),
        (True, (state("web", "active"),), False),
        (True, (state("web", "failed", stale=True),), True),
    ],
)
def test_what_ended_or_was_changed_is_started_again(
    changed: bool, states: tuple[UnitState, ...], reload: bool
) -> None:
    unit = "machineos-web.service"
    expected: tuple[object, ...] = (
        steps.ResetFailed((unit,)),
        steps.Say(f"starting {unit}"),
        steps.StartUnits((unit,)),
    )
    if reload:
        expected = (steps.ReloadUnits(), *expected)
    found = started(progress("web", changed=changed), states=states)
    assert found == expected


def test_systemd_reads_its_files_again_only_for_what_is_started() -> None:
    quiet = state("quiet", "active", stale=True)
    found = started(
        progress("new", fresh=True),
        progress("quiet"),
        progress("z", changed=True),
        progress("a", changed=True),
        states=(quiet, state("z", "active"), state("a", "active")),
    )
    assert found == (
        steps.ResetFailed(("machineos-a.service", "machineos-z.service")),
        steps.Say("starting machineos-new.service, machineos-z.service, machineos-a.service"),
        steps.StartUnits(("machineos-new.service", "machineos-z.service", "machineos-a.service")),
    )


def test_a_service_begins_with_its_network_or_its_refusal() -> None:
    found = planned(item("web", network=SIMPLE), item("late", network=SIMPLE))
    first, second = (machine.begin(found, service) for service in found.handover.services)
    assert first.network == known(found.network).attachment(item("web").id)
    assert (first.why, first.policy, first.handover) == ("", POLICY, found.handover)
    assert second.network is None
    assert (
        second.why == "service late: network.ports[0].host: tcp port 80 of the host is taken by web"
    )


def test_errands_for_what_is_not_wanted() -> None:
    around = Around(
        units=("machineos-web.service", "machineos-old.service", "ssh.service"), images=("1" * 64,)
    )
    found = machine.clearing(world(item("web"), around=around))
    assert [errand.what for errand in found] == ["removing what is no longer wanted"] * 2
    assert [errand.phases[1] for errand in found] == [
        removal.RemoveService(item("old").id),
        removal.RemoveImage(Digest("sha256", "1" * 64)),
    ]
    assert all(isinstance(errand.phases[0], machine.Looking) for errand in found)
    for errand in (*found, machine.stopping(item("web"))):
        check_order(errand.phases, given=errand.given)
    assert machine.stopping(item("web")).what == "stopping web"
    assert machine.stopping(item("web")).phases[1] == removal.RemoveService(item("web").id)


def test_the_world_grows_and_does_not_change() -> None:
    before = world()
    after = before.with_problem("x").with_problem("y").with_service(progress("web"))
    assert after.problems == ("x", "y")
    assert [one.service.name for one in after.services] == ["web"]
    assert (before.problems, before.services) == ((), ())
    assert machine.startable(after) == after.services
