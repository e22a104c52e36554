"""The phases of the whole machine: what is there, addresses, forwarded ports, starting. Pure.

Between them the services go their own way, each alone (``plan.service``). An *errand* is a part
that may fail and be reported while the rest goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from machineos.core.serviceid import LINK_PREFIX
from machineos.document.rules.network import BRIDGE
from machineos.document.state.leases import NO_LEASES, parse_leases
from machineos.errors import DocumentError
from machineos.service.plan import network, removal, ruleset, steps
from machineos.service.plan.facts import Part, Progress, World, known
from machineos.service.plan.network import Wanted, plan_network

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from machineos.core.serviceid import ServiceId
    from machineos.core.steps import Answers, Phase
    from machineos.document.between.handover import Service
    from machineos.host.unit.systemctl import UnitState
    from machineos.service.plan.model import Folders
    from machineos.service.plan.network import Forward, Link
    from machineos.service.plan.steps import Act

SERVICES = frozenset({"services"})  # given once each service has gone its way
# systemd: nothing runs, and nothing that failed is waited for.
_IDLE = "inactive"


class Looking(Part[World]):
    """Our folders are there, and known."""

    name = "look around"
    gives = frozenset({"what is there"})

    def plan(self, facts: World) -> tuple[Act[object], ...]:
        """Make the folders and look into them."""
        folders = facts.policy.folders
        return (*making_folders(folders), steps.Look(folders))

    def learn(self, facts: World, answers: Answers) -> World:
        """Keep what is there."""
        return replace(facts, around=answers.to(steps.Look(facts.policy.folders)))


class Addresses(Part[World]):
    """Each container has its addresses, those that it had before where it had some."""

    name = "give addresses"
    needs = frozenset({"what is there"})
    gives = frozenset({"network"})

    def learn(self, facts: World, answers: Answers) -> World:  # noqa: ARG002
        """Plan the network."""
        data, leases = known(facts.around).leases, NO_LEASES
        if data is not None:
            try:
                leases = parse_leases(data)
            except DocumentError as error:
                facts = facts.with_problem(f"addresses are chosen anew: {error}")
        wanted = [
            Wanted(service.id, service.network, service.nsgroup)
            for service in facts.handover.services
            if service.type == "container"
        ]
        return replace(facts, network=plan_network(wanted, leases))


class LeasesKept(Part[World]):
    """Who has which address is written down, for the mosd that comes after this one."""

    name = "keep the leases"
    needs = frozenset({"what is there", "network"})
    gives = frozenset({"leases"})

    def plan(self, facts: World) -> tuple[Act[object], ...]:
        """Write them, if they are new."""
        before = known(facts.around).leases
        data = known(facts.network).leases.to_bytes()
        if data == (NO_LEASES.to_bytes() if before is None else before):
            return ()
        return (steps.WriteFile(facts.policy.folders.leases, data, 0o644),)


class Walls(Part[World]):
    """Who may speak and what is routed is settled, and only then there is a bridge to do it on.

    Where the tables cannot be put in place there is no bridge either, and no service that needs it
    starts: all that is behind a table fails closed.
    """

    name = "build the walls"
    needs = frozenset({"network"}) | SERVICES
    gives = frozenset({"walls"})

    def plan(self, facts: World) -> tuple[Act[object], ...]:
        """Replace the tables by those for the services that can run."""
        plan, usable = known(facts.network), _usable(facts)
        links = plan.links(usable)
        forwards = [each for each in plan.forwards if each.service in usable]
        return walls(forwards, links)


class LinksSeen(Part[World]):
    """Which links there are, once those that come later find the setting for new ones."""

    name = "see the links"
    needs = frozenset({"walls"})
    gives = frozenset({"links"})

    def plan(self, facts: World) -> tuple[Act[object], ...]:
        """Set what new links get, then look."""
        return (*for_new_links(routes=_routes(facts)), steps.ListLinks())

    def learn(self, facts: World, answers: Answers) -> World:
        """Keep them."""
        return replace(facts, links=answers.to(steps.ListLinks()))


class Forwarding(Part[World]):
    """The switches of the kernel: on for the links between which something is to be routed, off as
    soon as no service needs it."""

    name = "forward ports"
    needs = frozenset({"walls", "links"})
    gives = frozenset({"forwarding"})

    def plan(self, facts: World) -> tuple[Act[object], ...]:
        """Switch."""
        return forwarding(facts.links, routes=_routes(facts))


class UnitsSeen(Part[World]):
    """What systemd knows of the units that were there before.

    A unit that systemd had not read before needs no question, no reload and no reset, which cost
    seconds at boot.
    """

    name = "see the units"
    needs = SERVICES
    gives = frozenset({"units"})

    def _names(self, facts: World) -> tuple[str, ...]:
        return tuple(sorted(one.service.id.unit for one in startable(facts) if not one.fresh))

    def plan(self, facts: World) -> tuple[Act[object], ...]:
        """Ask, if there are any."""
        names = self._names(facts)
        return (steps.ShowUnits(names),) if names else ()

    def learn(self, facts: World, answers: Answers) -> World:
        """Keep the answer."""
        names = self._names(facts)
        return replace(facts, states=answers.to(steps.ShowUnits(names)) if names else ())


class Starting(Part[World]):
    """What does not run is started; systemd does that in parallel."""

    name = "start services"
    needs = frozenset({"units"})
    gives = frozenset({"started"})

    def plan(self, facts: World) -> tuple[Act[object], ...]:
        """Start what is new, what was changed, and what had ended."""
        states = {state.name: state for state in facts.states}
        able = startable(facts)
        known_ones = [one for one in able if not one.fresh]
        again = sorted(one.service.id.unit for one in known_ones if _again(one, states))
        names = tuple(
            one.service.id.unit for one in able if one.fresh or one.service.id.unit in again
        )
        return (*_read_anew(again, states), *_starting(names))


class Errand(msgspec.Struct, frozen=True):
    """A part that may fail by itself; ``what`` says what failed then. ``given`` as for a runner."""

    what: str
    phases: tuple[Phase[World], ...]
    given: frozenset[str] = frozenset()


BEGIN: tuple[Phase[World], ...] = (Looking(), Addresses(), LeasesKept())
FINISH = (
    Errand(
        "forwarding ports",
        (Walls(), LinksSeen(), Forwarding()),
        frozenset({"network"}) | SERVICES,
    ),
    Errand("starting services", (UnitsSeen(), Starting()), SERVICES),
)


def clearing(world: World) -> tuple[Errand, ...]:
    """Return the errands that take away what the hand-over does not name."""
    what = "removing what is no longer wanted"
    return tuple(Errand(what, (Looking(), part)) for part in removal.leftovers(world))


def stopping(service: Service) -> Errand:
    """Return the errand for a service that is refused: it may run from before, with old rules."""
    return Errand(f"stopping {service.name}", (Looking(), removal.RemoveService(service.id)))


def begin(world: World, service: Service) -> Progress:
    """Return what is known of a service before its first phase; ``why`` if its network is
    refused."""
    plan = known(world.network)
    return Progress(
        service=service,
        handover=world.handover,
        policy=world.policy,
        network=plan.attachment(service.id),
        why=plan.why(service.id),
    )


def startable(world: World) -> tuple[Progress, ...]:
    """Return the services that have a unit and may run."""
    return tuple(one for one in world.services if one.spec is not None)


def making_folders(folders: Folders) -> tuple[Act[object], ...]:
    """Return the steps that make our folders; containers must be able to pass through to their
    roots, and nowhere else."""
    return (
        steps.MakeFolder(folders.units, 0o755),
        steps.MakeFolder(folders.run, 0o755),
        steps.MakeFolder(folders.roots, 0o711),
        steps.MakeFolder(folders.images, 0o700),
        steps.MakeFolder(folders.lxc, 0o711),
    )


def walls(forwards: Sequence[Forward], links: Sequence[Link]) -> tuple[Act[object], ...]:
    """Return the steps that let ``links`` speak and make exactly ``forwards`` hold."""
    bridge = (steps.MakeBridge(BRIDGE, network.BRIDGE_ADDRESSES),) if links else ()
    return (steps.ApplyRules(ruleset.render(forwards, links)), *bridge)


def for_new_links(*, routes: bool) -> tuple[Act[object], ...]:
    """Return the steps for links that are not there yet: a network card may be plugged in."""
    return (
        # Who is told another way by ICMP would go around the walls, and who routes is not told.
        steps.Switch("ipv4/conf/all/accept_redirects", False),
        steps.Switch("ipv4/conf/all/send_redirects", False),
        steps.Switch("ipv4/conf/default/forwarding", routes),
    )


def forwarding(links: Sequence[str], *, routes: bool) -> tuple[Act[object], ...]:
    """Return the steps that switch routing between the bridge and all outside ``links``.

    IPv4 has a switch for each link, which counts where a packet comes in. IPv6 has, before Linux
    6.17, one for all. The table decides either way; what is not switched on needs no table.
    """
    outside = [name for name in links if name != "lo" and not name.startswith(LINK_PREFIX)]
    return (
        *(steps.Switch(f"ipv4/conf/{name}/forwarding", routes, optional=True) for name in outside),
        # A kernel may have been started without IPv6.
        steps.Switch("ipv6/conf/all/forwarding", routes, optional=True),
        # The first chain of the table is what makes this one harmless.
        steps.Switch(f"ipv4/conf/{BRIDGE}/route_localnet", routes, optional=not routes),
        steps.Switch(f"ipv4/conf/{BRIDGE}/send_redirects", False, optional=not routes),
    )


def _usable(facts: World) -> frozenset[ServiceId]:
    """Return the services that can run."""
    return frozenset(one.service.id for one in facts.services if not one.why)


def _routes(facts: World) -> bool:
    """Whether a service that can run has a link, so that there is something to route."""
    return bool(known(facts.network).links(_usable(facts)))


def _read_anew(again: Sequence[str], states: Mapping[str, UnitState]) -> tuple[Act[object], ...]:
    """Return the steps before units that systemd knows are started again."""
    if not again:
        return ()
    stale = any(states[name].stale for name in again if name in states)
    return (*((steps.ReloadUnits(),) if stale else ()), steps.ResetFailed(tuple(again)))


def _starting(names: tuple[str, ...]) -> tuple[Act[object], ...]:
    if not names:
        return ()
    return (steps.Say(f"starting {', '.join(names)}"), steps.StartUnits(names))


def _again(one: Progress, states: Mapping[str, UnitState]) -> bool:
    """Whether a unit that is there has to be started.

    One that failed before we were restarted stays failed: systemd gave it its chances.
    """
    state = states.get(one.service.id.unit)
    return one.changed or state is None or state.active == _IDLE
