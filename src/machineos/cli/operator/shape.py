"""The state of an appliance, as JSON, as a table and in lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from machineos.document.between.status import ServiceStatus, Status

COLUMNS = ("NAME", "VERSION", "STATE", "ADDRESS", "WHY")


def status_json(found: Status) -> dict[str, object]:
    """Return everything that the service manager sees."""
    result: dict[str, object] = msgspec.to_builtins(found)
    return result


def service_json(one: ServiceStatus) -> dict[str, object]:
    """Return one service."""
    result: dict[str, object] = msgspec.to_builtins(one)
    return result


def head(found: Status) -> list[str]:
    """Return what stands above the table of services."""
    state = "good" if found.good else ("degraded" if found.settled else "starting")
    return [
        f"product     {found.product}",
        f"generation  {found.generation}",
        f"state       {state} (seen {found.updated})",
        *(f"problem     {problem}" for problem in found.problems),
    ]


def rows(found: Status) -> list[tuple[str, ...]]:
    """Return a row for each service."""
    return [
        (item.name, item.version, item.state, next(iter(item.addresses), "-"), item.why or "-")
        for item in found.services
    ]


def details(one: ServiceStatus) -> list[str]:
    """Return the lines about one service; what is empty is left out."""
    owner = f"{one.nsgroup} (from {one.hostid})" if one.hostid else "host ids"
    pairs = [
        ("name", one.name),
        ("version", one.version),
        ("state", one.state),
        ("why", one.why),
        ("ids", owner),
        ("network", " ".join((one.network, *one.addresses))),
        ("ports", ", ".join(one.ports)),
        ("pid", str(one.pid or "")),
        ("restarts", str(one.restarts or "")),
        ("unit", one.unit),
        ("log", f"journalctl -u {one.unit}" if one.unit else ""),
        *(("note", note) for note in one.notes),
    ]
    return [f"{key:<10}  {value}" for key, value in pairs if value]
