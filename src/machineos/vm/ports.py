"""Ports of the host that lead into a machine: chosen from what the services publish, and checked
before a start.

Nothing is bound but 127.0.0.1 unless machine.yaml names another address. Whether a port is free
is asked of a function: nothing here touches the network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from machineos.errors import ConflictError, MachineError
from machineos.vm.model import Endpoint, Nic, Port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from machineos.vm.model import Machine

Transport = Literal["tcp", "udp"]
LOOPBACK = "127.0.0.1"
_PRIVILEGED = 1024
_OFFSET = 28000  # seed 002: port 80 of the appliance is 28080 of the host
_LAST = 65535


class Free(Protocol):
    """Whether the host could bind a port now."""

    def __call__(self, protocol: Transport, port: int, address: str = LOOPBACK) -> bool:
        """Tell it of one port."""
        ...


def ports_from_manifest(
    published: Sequence[tuple[Transport, int]],
    free: Free,
    *,
    nic: str = "nic0",
) -> Nic:
    """Return an interface that forwards a host port to each port that the services publish.

    A privileged port gets 28000 added, another keeps its number; the next free one is taken where
    that is in use. ``free`` tells whether the host has a port free. Pure. Raises: MachineError.
    """
    chosen: dict[tuple[Transport, int], Port] = {}
    taken: set[tuple[Transport, int]] = set()
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


def forwards(machine: Machine) -> Iterator[Port]:
    """Yield every forwarded port of a machine."""
    for nic in machine.config.nics:
        yield from nic.ports


def check_free(machine: Machine, free: Free) -> None:
    """Refuse to go on when a host port of the machine is taken, as ``free`` tells. Pure.

    Raises: ConflictError.
    """
    for port in forwards(machine):
        address = port.host.address or LOOPBACK
        if not free(port.protocol, port.host.port, address):
            raise ConflictError(
                f"machine {machine.name}: {port.protocol} port {port.host.port} of {address} is "
                "in use or not allowed",
                hint=f"end what uses it, or change it with: machine edit {machine.name}",
            )
