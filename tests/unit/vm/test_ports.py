"""Choosing and checking host ports."""

from __future__ import annotations

import socket
from collections.abc import Collection
from typing import Literal

import pytest

from machineos.errors import ConflictError, MachineError
from machineos.vm.model import Config, Endpoint, Machine, Nic, Port
from machineos.vm.ports import forwards, is_free, ports_from_manifest, require_free

Protocol = Literal["tcp", "udp"]


def chosen(
    published: list[tuple[Protocol, int]], taken: Collection[tuple[str, int]] = ()
) -> list[tuple[str, int, int]]:
    nic = ports_from_manifest(published, lambda protocol, port: (protocol, port) not in taken)
    return [(port.protocol, port.host.port, port.guest.port) for port in nic.ports]


def test_privileged_ports_move_by_28000_as_in_the_seed() -> None:
    assert chosen([("tcp", 80), ("tcp", 443), ("udp", 53)]) == [
        ("tcp", 28080, 80),
        ("tcp", 28443, 443),
        ("udp", 28053, 53),
    ]


def test_other_ports_keep_their_number() -> None:
    assert chosen([("tcp", 5000)]) == [("tcp", 5000, 5000)]


def test_next_free_port_is_taken() -> None:
    taken = {("tcp", 28080), ("tcp", 28081), ("udp", 28082)}
    assert chosen([("tcp", 80)], taken) == [("tcp", 28082, 80)]


def test_two_services_never_get_one_host_port() -> None:
    assert chosen([("tcp", 80), ("tcp", 28080)]) == [("tcp", 28080, 80), ("tcp", 28081, 28080)]


def test_a_port_published_twice_is_forwarded_once() -> None:
    assert chosen([("tcp", 80), ("tcp", 80), ("udp", 80)]) == [
        ("tcp", 28080, 80),
        ("udp", 28080, 80),
    ]


def test_no_port_left() -> None:
    with pytest.raises(MachineError, match="tcp port"):
        ports_from_manifest([("tcp", 80)], lambda _protocol, _port: False)


@pytest.mark.parametrize(
    ("protocol", "kind"), [("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)]
)
def test_a_taken_port_is_refused_by_name(protocol: Protocol, kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as holder:
        holder.bind(("127.0.0.1", 0))
        if protocol == "tcp":
            holder.listen()
        number = holder.getsockname()[1]
        nic = Nic(ports=(Port(Endpoint(number), Endpoint(80), protocol),))
        machine = Machine(name="a", config=Config(name="a", nics=(nic,)))
        assert not is_free(protocol, number)
        with pytest.raises(ConflictError, match=f"{protocol} port {number} of 127.0.0.1"):
            require_free(machine)
    assert is_free(protocol, number)
    require_free(machine)
    assert list(forwards(machine)) == list(nic.ports)
