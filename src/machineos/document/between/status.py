"""What is known about the services: ``/run/machineos/status.json``, read by mosctl.

Written whole and atomically by mosd alone; whoever reads it sees one moment.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from machineos.core.jsondoc import decode_json

MAX_SIZE = 4 << 20

State = Literal["running", "starting", "stopped", "failed", "refused", "mounted"]
# "starting" may still become either.
_SETTLED = frozenset({"running", "stopped", "failed", "refused", "mounted"})
_GOOD = frozenset({"running", "mounted"})


class ServiceStatus(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One service. ``why`` explains a state that is not good; ``notes`` are for a person."""

    name: str
    version: str
    state: State
    why: str = ""
    unit: str = ""
    pid: int = 0
    restarts: int = 0
    nsgroup: str = ""
    hostid: int = 0
    network: str = "none"
    addresses: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Status(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The machine. ``settled``: nothing is starting any more; ``good``: and all of it works."""

    version: int
    generation: str
    product: str
    updated: str
    settled: bool
    good: bool
    problems: tuple[str, ...]
    services: tuple[ServiceStatus, ...]


def summarise(
    *,
    generation: str,
    product: str,
    updated: str,
    problems: tuple[str, ...],
    services: tuple[ServiceStatus, ...],
) -> Status:
    """Return the status of a machine with these services."""
    settled = all(service.state in _SETTLED for service in services)
    good = not problems and all(service.state in _GOOD for service in services)
    return Status(1, generation, product, updated, settled, good, problems, services)


def encode(status: Status) -> bytes:
    """Return the bytes of the file."""
    return msgspec.json.encode(status)


def parse_status(data: bytes, *, name: str = "status.json") -> Status:
    """Return what mosd wrote. Raises: DocumentError."""
    return decode_json(data, Status, name=name, limit=MAX_SIZE)
