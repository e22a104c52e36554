"""What is said about each service, from the plan and from what systemd says of its unit. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.document.between.status import ServiceStatus, State

if TYPE_CHECKING:
    from collections.abc import Mapping

    from machineos.host.unit.systemctl import UnitState
    from machineos.service.plan.facts import Progress, World

_STARTING = frozenset({"activating", "reloading"})


def status(world: World, states: Mapping[str, UnitState]) -> tuple[ServiceStatus, ...]:
    """Return the state of every service, in the order of the hand-over."""
    return tuple(_one(one, states.get(one.service.id.unit)) for one in world.services)


def _one(one: Progress, now: UnitState | None) -> ServiceStatus:
    service = one.service
    state, why = _state(one, now)
    runs = one.spec is not None
    network = one.spec.network if one.spec is not None else None
    addresses = (network.ipv4, network.ipv6) if network is not None else ()
    return ServiceStatus(
        name=service.name,
        version=service.version,
        state=state,
        why=why,
        unit=service.id.unit if runs else "",
        pid=now.main_pid if runs and now is not None else 0,
        restarts=now.restarts if runs and now is not None else 0,
        nsgroup=service.nsgroup,
        hostid=service.hostid,
        network=service.network.type,
        addresses=tuple(str(each.ip) for each in addresses if each is not None),
        ports=tuple(
            f"{port.host}->{port.container}/{port.protocol}" for port in service.network.ports or ()
        ),
        notes=one.notes,
    )


def _state(one: Progress, now: UnitState | None) -> tuple[State, str]:
    if one.why:
        return "refused", one.why
    if one.spec is None:
        return "mounted", ""
    if now is None:
        return "failed", "systemd does not know its unit"
    if now.active == "active":
        return "running", ""
    if now.active in _STARTING:
        return "starting", f"restarting after {_ending(now)}" if now.restarts else ""
    if now.active == "failed":
        return "failed", f"{_ending(now)}; see: journalctl -u {now.name}"
    return "stopped", f"ended with status {now.exit_status}"


def _ending(now: UnitState) -> str:
    return f"{now.result or 'failure'} (exit status {now.exit_status})"
