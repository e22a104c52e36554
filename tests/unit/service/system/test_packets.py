"""The nftables table with real packets, in network namespaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from unit.service.system.machine import Machine, forward, running_machine
from unit.service.system.talk import KINDS, LISTEN, ask, silent

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.system, pytest.mark.tool("nft"), pytest.mark.tool("ip")]

PORTS = (forward("tcp", 80, 5000, 9), forward("udp", 80, 5000, 9))


@pytest.fixture(scope="module")
def served() -> Iterator[Machine]:
    """Two containers; the first serves on port 5000, which is port 80 of the host. On port 80
    listen the host itself and a foreign machine outside."""
    with running_machine() as machine:
        first = machine.add_container("10.0.3.9/24", "fd6d:6f73:3000:3::9/64")
        machine.add_container("10.0.3.10/24", "fd6d:6f73:3000:3::10/64")
        machine.spawn(first, LISTEN, "5000", "web")
        machine.spawn(machine.outside, LISTEN, "80", "foreign")
        machine.spawn(machine.host, LISTEN, "80", "own")
        machine.wait_for_link_addresses()
        for _ in range(2):
            machine.forward(*PORTS)
        yield machine


@pytest.mark.parametrize("kind", KINDS)
def test_a_port_answers_from_everywhere(served: Machine, kind: str) -> None:
    outside, host, second = served.outside, served.host, served.extra[1]
    # From outside the service sees who asks.
    assert ask(served, outside, kind, "192.0.2.1") == "web 192.0.2.2"
    assert ask(served, outside, kind, "2001:db8::1") == "web 2001:db8::2"
    # From the host itself, which the predecessor could not.
    assert ask(served, host, kind, "127.0.0.1") == "web 10.0.3.1"
    assert ask(served, host, kind, "192.0.2.1").startswith("web ")
    assert ask(served, host, kind, "2001:db8::1").startswith("web ")
    # From another service, through the host's address: the answer has to come back the same way.
    assert ask(served, second, kind, "192.0.2.1") == "web 10.0.3.1"
    assert ask(served, second, kind, "2001:db8::1") == "web fd6d:6f73:3000:3::1"


def test_the_hosts_own_loopback_six_is_left_alone(served: Machine) -> None:
    """The kernel could not send the answer back; what listens there is the host's own."""
    assert ask(served, served.host, "tcp", "::1") == "own ::1"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("address", "seen"), [("192.0.2.2", "192.0.2.1"), ("2001:db8::2", "2001:db8::1")]
)
def test_a_connection_to_somebody_else_is_not_ours(
    served: Machine, kind: str, address: str, seen: str
) -> None:
    """Port 80 of a foreign machine, asked by a service and by the host: a rule that looks at the
    port alone would hand both to the service of that port here. Services are masqueraded."""
    for space in (served.extra[1], served.extra[0], served.host):
        assert ask(served, space, kind, address) == f"foreign {seen}"


def test_only_what_is_forwarded_is_reached(served: Machine) -> None:
    # Also by one who routes to the bridge's network.
    assert silent(served, served.outside, "tcp", "10.0.3.9", "5000")
    assert silent(served, served.outside, "tcp", "fd6d:6f73:3000:3::9", "5000")
    assert silent(served, served.outside, "tcp", "192.0.2.1", "5000")
    # Taking the rules away takes the forwarding away: the host's own listener answers.
    served.forward()
    assert ask(served, served.outside, "tcp", "192.0.2.1") == "own 192.0.2.2"
    assert ask(served, served.host, "tcp", "127.0.0.1") == "own 127.0.0.1"
    served.forward(*PORTS)
    assert ask(served, served.outside, "tcp", "192.0.2.1") == "web 192.0.2.2"
