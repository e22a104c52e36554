"""The nftables table with real packets, in network namespaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from unit.service.system.machine import Machine, forward, running_machine
from waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.system, pytest.mark.tool("nft"), pytest.mark.tool("ip")]

LISTEN = """
import socket, sys, threading
socks = []
for family, address in ((socket.AF_INET, '0.0.0.0'), (socket.AF_INET6, '::')):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        s = socket.socket(family, kind)
        if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((address, int(sys.argv[1])))
        if kind == socket.SOCK_STREAM: s.listen()
        socks.append((s, kind))
def serve(s, kind):
    while True:
        if kind == socket.SOCK_DGRAM:
            data, peer = s.recvfrom(100)
            s.sendto((sys.argv[2] + ' ' + peer[0]).encode(), peer)
        else:
            c, peer = s.accept()
            c.sendall((sys.argv[2] + ' ' + peer[0]).encode())
            c.close()
for item in socks: threading.Thread(target=serve, args=item).start()
print('ready', flush=True)
"""
# Says who answered and whom that saw. An answer may be late; silence is waited for only where it is
# what we expect, and then what would answer does so at once.
ASK = """
import socket, sys
kind, address, port, seconds = sys.argv[1:5]
family = socket.AF_INET6 if ':' in address else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM if kind == 'udp' else socket.SOCK_STREAM)
s.settimeout(float(seconds))
s.connect((address, int(port)))
s.send(b'?') if kind == 'udp' else None
print(s.recv(100).decode())
"""
SILENCE = "1.5"
KINDS = ("tcp", "udp")
PORTS = (forward("tcp", 80, 5000, 9), forward("udp", 80, 5000, 9))


def ask(machine: Machine, space: str, kind: str, address: str, port: str = "80") -> str:
    """Return what answers; fail when nothing does."""
    return machine.python(space, ASK, kind, address, port, "60").text


def silent(machine: Machine, space: str, kind: str, address: str, port: str = "80") -> bool:
    """Whether nothing answers."""
    result = machine.python(space, ASK, kind, address, port, SILENCE, check=False)
    return result.status != 0


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
    served.run(served.outside, "ip", "route", "add", "10.0.3.0/24", "via", "192.0.2.1")
    served.run(
        served.outside, "ip", "-6", "route", "add", "fd6d:6f73:3000:3::/64", "via", "2001:db8::1"
    )
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


RECORD = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind((sys.argv[2], 6000))
print('ready', flush=True)
while True:
    data = s.recv(100)
    with open(sys.argv[1], 'ab') as file: file.write(data + b' ')
"""
SEND = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
if sys.argv[2]:
    s.setsockopt(socket.SOL_IP, 15, 1)  # IP_FREEBIND
    s.bind((sys.argv[2], 0))
s.sendto(sys.argv[1].encode(), (sys.argv[3], 6000))
"""


def seen(path: Path) -> list[str]:
    return path.read_text().split()


def test_a_service_cannot_reach_the_loopback_of_the_host(machine: Machine, tmp_path: Path) -> None:
    """CVE-2020-8558: route_localnet alone would let it, which the second half shows."""
    space = machine.add_container("10.0.3.9/24", "fd6d:6f73:3000:3::9/64")
    machine.forward()
    heard = tmp_path / "heard"
    heard.touch()
    machine.spawn(machine.host, RECORD, str(heard), "127.0.0.9")
    # Root in the service's own network can make it send anything.
    machine.run(space, "ip", "link", "set", "lo", "down")
    machine.run(space, "ip", "route", "add", "127.0.0.9/32", "via", "10.0.3.1", "src", "10.0.3.9")
    machine.run(space, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet")
    machine.python(space, SEND, "dropped", "", "127.0.0.9")
    machine.run(machine.host, "nft", "flush", "chain", "inet", "machineos", "martians")
    machine.python(space, SEND, "arrived", "", "127.0.0.9")
    wait_for(lambda: "arrived" in seen(heard))
    assert seen(heard) == ["arrived"]


def test_a_service_cannot_speak_as_the_loopback_of_the_host(
    machine: Machine, tmp_path: Path
) -> None:
    """A packet from 127.0.0.1: what trusts that address on the host must not get it."""
    space = machine.add_container("10.0.3.9/24", "fd6d:6f73:3000:3::9/64")
    machine.forward()
    heard = tmp_path / "heard"
    heard.touch()
    machine.spawn(machine.host, RECORD, str(heard), "10.0.3.1")
    machine.run(space, "ip", "link", "set", "lo", "down")
    machine.run(space, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet")
    machine.run(space, "ip", "addr", "add", "127.0.0.66/32", "dev", "eth0")
    machine.python(space, SEND, "dropped", "127.0.0.66", "10.0.3.1")
    machine.python(space, SEND, "honest", "", "10.0.3.1")
    machine.run(machine.host, "nft", "flush", "chain", "inet", "machineos", "martians")
    machine.python(space, SEND, "arrived", "127.0.0.66", "10.0.3.1")
    wait_for(lambda: "arrived" in seen(heard))
    assert seen(heard) == ["honest", "arrived"]
