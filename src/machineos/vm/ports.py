"""Ports of the host that lead into a machine: chosen from what the services publish, and checked
before a start.

Nothing is bound but 127.0.0.1 unless machine.yaml names another address.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Literal

from machineos.errors import ConflictError, MachineError
from machineos.vm.model import Endpoint, Nic, Port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from machineos.vm.model import Machine

Protocol = Literal["tcp", "udp"]
_PRIVILEGED = 1024
_OFFSET = 28000  # seed 002: port 80 of the appliance is 28080 of the host
_LAST = 65535


def ports_from_manifest(
    published: Sequence[tuple[Protocol, int]],
    free: Callable[[Protocol, int], bool],
    *,
    nic: str = "nic0",
) -> Nic:
    """Return an interface that forwards a host port to each port that the services publish.

    A privileged port gets 28000 added, another keeps its number; the next free one is taken where
    that is in use. ``free`` tells whether the host has a port free. Pure. Raises: MachineError.
    """
    chosen: dict[tuple[Protocol, int], Port] = {}
    taken: set[tuple[Protocol, int]] = set()
    for protocol, port in published:
        if (protocol, port) in chosen:
            continue
        wanted = port + _OFFSET if port < _PRIVILEGED else port
        host = next(
            (
                number
                for number in range(wanted, _LAST + 1)
                if (protocol, number) not in taken and free(protocol, number)
            ),
            0,
        )
        if not host:
            raise MachineError(f"no {protocol} port of this host is free for port {port}")
        taken.add((protocol, host))
        chosen[protocol, port] = Port(Endpoint(host), Endpoint(port), protocol)
    return Nic(id=nic, ports=tuple(chosen.values()))


def is_free(protocol: Protocol, port: int, address: str = "127.0.0.1") -> bool:
    """Whether the host could bind this port now."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as probe:
        if protocol == "tcp":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def forwards(machine: Machine) -> Iterator[Port]:
    """Yield every forwarded port of a machine."""
    for nic in machine.config.nics:
        yield from nic.ports


def require_free(machine: Machine) -> None:
    """Refuse to go on when a host port of the machine is taken. Raises: ConflictError."""
    for port in forwards(machine):
        address = port.host.address or "127.0.0.1"
        if not is_free(port.protocol, port.host.port, address):
            raise ConflictError(
                f"machine {machine.name}: {port.protocol} port {port.host.port} of {address} is "
                "in use or not allowed",
                hint=f"end what uses it, or change it with: machine edit {machine.name}",
            )
