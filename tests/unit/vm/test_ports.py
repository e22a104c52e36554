"""Choosing and checking host ports."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pytest

from machineos.errors import ConflictError, MachineError
from machineos.vm.model import Config, Endpoint, Machine, Nic, Port
from machineos.vm.ports import Transport, check_free, forwards, ports_from_manifest

Published = tuple[Transport, int]


class Host:
    """A host with some ports taken; remembers what it was asked."""

    def __init__(self, taken: Collection[Published] = ()) -> None:
        self._taken = taken
        self.asked: list[tuple[Transport, int, str]] = []

    def __call__(self, protocol: Transport, port: int, address: str = "127.0.0.1") -> bool:
        self.asked.append((protocol, port, address))
        return (protocol, port) not in self._taken


def chosen(
    published: Sequence[Published], taken: Collection[Published] = ()
) -> list[tuple[str, int, int]]:
    nic = ports_from_manifest(published, Host(taken))
    assert nic.id == "nic0"
    return [(port.protocol, port.host.port, port.guest.port) for port in nic.ports]


def test_privileged_ports_move_by_28000_as_in_the_seed() -> None:
    assert chosen([("tcp", 80), ("tcp", 1023), ("udp", 53)]) == [
        ("tcp", 28080, 80),
        ("tcp", 29023, 1023),
        ("udp", 28053, 53),
    ]


def test_other_ports_keep_their_number() -> None:
    assert chosen([("tcp", 1024), ("tcp", 65535)]) == [("tcp", 1024, 1024), ("tcp", 65535, 65535)]


def test_next_free_port_is_taken() -> None:
    taken: set[Published] = {("tcp", 28080), ("tcp", 28081), ("udp", 28082)}
    assert chosen([("tcp", 80)], taken) == [("tcp", 28082, 80)]


def test_two_services_never_get_one_host_port() -> None:
    assert chosen([("tcp", 80), ("tcp", 28080)]) == [("tcp", 28080, 80), ("tcp", 28081, 28080)]


def test_a_port_published_twice_is_forwarded_once() -> None:
    assert chosen([("tcp", 80), ("tcp", 80), ("udp", 80)]) == [
        ("tcp", 28080, 80),
        ("udp", 28080, 80),
    ]


def test_no_port_left() -> None:
    with pytest.raises(MachineError, match="no tcp port of this host is free for port 65535"):
        chosen([("tcp", 65535)], {("tcp", 65535)})


def test_the_interface_can_have_another_name() -> None:
    assert ports_from_manifest([], Host(), nic="other") == Nic(id="other")


def test_a_taken_port_is_refused_by_name() -> None:
    ports = (
        Port(Endpoint(5000), Endpoint(80)),
        Port(Endpoint(53, "0.0.0.0"), Endpoint(53), "udp"),
    )
    machine = Machine(name="a", config=Config(name="a", nics=(Nic(ports=ports),)))
    assert list(forwards(machine)) == list(ports)
    host = Host()
    check_free(machine, host)
    assert host.asked == [("tcp", 5000, "127.0.0.1"), ("udp", 53, "0.0.0.0")]
    with pytest.raises(ConflictError) as caught:
        check_free(machine, Host({("udp", 53)}))
    assert caught.value.message == ("machine a: udp port 53 of 0.0.0.0 is in use or not allowed")
    assert caught.value.hint.endswith("machine edit a")
