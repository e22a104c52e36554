from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.document.product.install import Network, Port
from machineos.errors import ConflictError, DocumentError, SpaceError
from machineos.host.unit import nft
from machineos.service.plan.network import (
    FAMILY,
    GATEWAY4,
    TABLE,
    Forward,
    plan_network,
    render_table,
)
from unit.service.conftest import Machine, eventually


def simple(ipv4: str = "", ipv6: str = "", *ports: Port) -> Network:
    return Network(type="simple", ipv4=ipv4, ipv6=ipv6, ports=ports)


def test_an_automatic_address_skips_what_others_ask_for_even_later() -> None:
    plan = plan_network([("a", simple()), ("b", simple("10.0.3.3/24")), ("c", simple())])
    found = {name: str(item.ipv4) for name, item in plan.attachments.items()}
    assert found == {"b": "10.0.3.3/24", "a": "10.0.3.4/24", "c": "10.0.3.5/24"}
    assert str(plan.attachments["a"].ipv6) == "fd6d:6f73:3000:3::4/64"
    assert plan.attachments["a"].hardware == "00:16:3e:00:03:04"
    assert plan.attachments["a"].pair == "mv0a000304"


def test_there_are_252_automatic_addresses_and_then_none() -> None:
    plan = plan_network([(f"s{i}", simple()) for i in range(253)])
    assert str(plan.attachments["s251"].ipv4) == "10.0.3.254/24"
    assert isinstance(plan.refused["s252"], SpaceError)


@pytest.mark.parametrize(
    ("network", "error", "text"),
    [
        (simple("10.0.3.1/24"), ConflictError, "taken by the host"),
        (simple("10.0.3.99/24"), ConflictError, "taken by first"),
        (simple("10.0.4.9/24"), DocumentError, "not in 10.0.3.0/24"),
        (simple("10.0.3.9/16"), DocumentError, "not in 10.0.3.0/24"),
        (simple("10.0.3.255/24"), DocumentError, "not the address of one host"),
        (simple("10.0.3/24"), DocumentError, "not an IPv4 address"),
        (simple("", "fd00::9/64"), DocumentError, "not in fd6d:6f73"),
        (simple("", "fd6d:6f73:3000:3::63/64"), ConflictError, "taken by first"),
        (simple("", "", Port(host=80, container=1)), ConflictError, "tcp port 80 of the host"),
        (
            simple("", "", Port(host=90, container=1), Port(host=90, container=2)),
            ConflictError,
            "tcp port 90",
        ),
        (Network(type="host", ports=(Port(host=1, container=1),)), DocumentError, "forwards no"),
    ],
)
def test_contradictions_are_refused_alone(
    network: Network, error: type[Exception], text: str
) -> None:
    first = simple("10.0.3.99/24", "", Port(host=80, container=5000))
    plan = plan_network([("first", first), ("second", network), ("third", simple())])
    assert type(plan.refused["second"]) is error
    assert text in str(plan.refused["second"])
    assert set(plan.attachments) == {"first", "third"}
    assert [item.service for item in plan.forwards] == ["first"]


def test_the_same_port_number_for_tcp_and_udp_is_no_conflict() -> None:
    plan = plan_network(
        [
            ("a", simple("", "", Port(host=53, container=53))),
            ("b", simple("", "", Port(host=53, container=53, protocol="udp"))),
        ]
    )
    assert not plan.refused
    assert {(item.protocol, item.host) for item in plan.forwards} == {("tcp", 53), ("udp", 53)}


@given(
    st.lists(
        st.one_of(st.just(""), st.integers(0, 255).map(lambda n: f"10.0.3.{n}/24")), max_size=40
    )
)
def test_no_two_services_share_an_address(texts: list[str]) -> None:
    services = [(f"s{i}", simple(text)) for i, text in enumerate(texts)]
    plan = plan_network(services)
    for key in ("ipv4", "ipv6", "hardware", "pair"):
        values = [getattr(item, key) for item in plan.attachments.values()]
        assert len(values) == len(set(values))
    assert set(plan.attachments) | set(plan.refused) == {name for name, _ in services}
    for item in plan.attachments.values():
        assert item.ipv4 is not None
        assert item.ipv4.ip in GATEWAY4.network
    assert plan_network(services) == plan or plan.refused  # errors do not compare equal


def test_table_names_both_families_and_the_service() -> None:
    text = render_table([forward("udp", 53, 5353, 9)])
    assert "meta nfproto ipv4 udp dport 53 dnat ip to 10.0.3.9:5353" in text
    assert "meta nfproto ipv6 udp dport 53 dnat ip6 to [fd6d:6f73:3000:3::9]:5353" in text


def forward(protocol: str, host: int, port: int, number: int) -> Forward:
    ipv4 = ipaddress.IPv4Address(f"10.0.3.{number}")
    ipv6 = ipaddress.IPv6Address(f"fd6d:6f73:3000:3::{number}")
    return Forward("web", protocol, host, port, ipv4, ipv6)


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
            s.sendto(peer[0].encode(), peer)
        else:
            c, peer = s.accept()
            c.sendall(peer[0].encode())
            c.close()
for item in socks: threading.Thread(target=serve, args=item).start()
print('ready', flush=True)
"""
ASK = """
import socket, sys
kind, address, port = sys.argv[1:4]
family = socket.AF_INET6 if ':' in address else socket.AF_INET
s = socket.socket(family, socket.SOCK_DGRAM if kind == 'udp' else socket.SOCK_STREAM)
s.settimeout(1.0)
s.connect((address, int(port)))
s.send(b'?') if kind == 'udp' else None
print(s.recv(100).decode())
"""
APPLY = """
import sys
from pathlib import Path
from ipaddress import ip_address as a
from machineos.daemon.adapters import Forwarding
from machineos.service.plan.network import Forward
out = []
for text in sys.argv[1:]:
    protocol, host, port, v4, v6 = text.split(',')
    out.append(Forward('web', protocol, int(host), int(port), a(v4), a(v6)))
Forwarding(proc=Path('/proc'), sys=Path('/sys'))(out)
"""


def apply(machine: Machine, *forwards: Forward) -> None:
    words = [f"{f.protocol},{f.host},{f.port},{f.ipv4},{f.ipv6}" for f in forwards]
    machine.python(machine.host, APPLY, *words)


@pytest.mark.system
@pytest.mark.tool("nft")
@pytest.mark.tool("ip")
def test_forwarding_with_real_packets(machine: Machine) -> None:
    first = machine.add_container("10.0.3.9/24", "fd6d:6f73:3000:3::9/64")
    second = machine.add_container("10.0.3.10/24", "fd6d:6f73:3000:3::10/64")
    machine.spawn(first, LISTEN, "5000")
    machine.wait_for_link_addresses()
    apply(machine, forward("tcp", 80, 5000, 9), forward("udp", 80, 5000, 9))
    apply(machine, forward("tcp", 80, 5000, 9), forward("udp", 80, 5000, 9))

    def ask(space: str, kind: str, address: str, port: str = "80") -> str:
        return machine.python(space, ASK, kind, address, port, check=False).text

    for kind in ("tcp", "udp"):
        # From outside the service sees who asks.
        assert ask(machine.outside, kind, "192.0.2.1") == "192.0.2.2"
        assert ask(machine.outside, kind, "2001:db8::1") == "2001:db8::2"
        # From the host itself, which the predecessor could not.
        assert ask(machine.host, kind, "127.0.0.1") == "10.0.3.1"
        assert ask(machine.host, kind, "192.0.2.1") != ""
        assert ask(machine.host, kind, "2001:db8::1") != ""
        # From another service, through the host's address.
        assert ask(second, kind, "192.0.2.1") == "10.0.3.1"
    # Services reach the outside, masqueraded.
    machine.spawn(machine.outside, LISTEN, "7000")
    assert ask(first, "tcp", "192.0.2.2", "7000") == "192.0.2.1"
    assert ask(first, "udp", "2001:db8::2", "7000") == "2001:db8::1"
    # What is not forwarded is not reachable, even for one who routes to the bridge's network.
    run_ip(machine, machine.outside, "route", "add", "10.0.3.0/24", "via", "192.0.2.1")
    assert ask(machine.outside, "tcp", "10.0.3.9", "5000") == ""
    # Taking the rules away takes the forwarding away.
    apply(machine)
    assert ask(machine.outside, "tcp", "192.0.2.1") == ""


RECORD = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('127.0.0.9', 6000))
print('ready', flush=True)
while True:
    data = s.recv(100)
    with open(sys.argv[1], 'ab') as file: file.write(data)
"""
SEND = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(sys.argv[1].encode(), ('127.0.0.9', 6000))
"""


@pytest.mark.system
@pytest.mark.tool("nft")
@pytest.mark.tool("ip")
def test_a_service_cannot_reach_the_loopback_of_the_host(machine: Machine, tmp_path: Path) -> None:
    """CVE-2020-8558: route_localnet alone would let it, which the second half shows."""
    space = machine.add_container("10.0.3.9/24", "fd6d:6f73:3000:3::9/64")
    apply(machine)
    seen = tmp_path / "seen"
    seen.write_bytes(b"")
    machine.spawn(machine.host, RECORD, str(seen))
    # Root in the service's own network can make it send anything.
    run_ip(machine, space, "link", "set", "lo", "down")
    run_ip(machine, space, "route", "add", "127.0.0.9/32", "via", "10.0.3.1", "src", "10.0.3.9")
    machine.run(space, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet")
    machine.python(space, SEND, "dropped")
    machine.run(machine.host, "nft", "flush", "chain", "inet", "machineos", "martians")
    machine.python(space, SEND, "arrived")
    with eventually(3.0) as check:
        check(lambda: b"arrived" in seen.read_bytes())
    assert seen.read_bytes() == b"arrived"


@pytest.mark.system
@pytest.mark.tool("nft")
@pytest.mark.tool("ip")
def test_a_refused_ruleset_changes_nothing(machine: Machine) -> None:
    apply(machine, forward("tcp", 80, 5000, 9))
    before = machine.run(machine.host, "nft", "list", "ruleset").text
    bad = nft.replace_table(FAMILY, TABLE, render_table([]) + "  nonsense\n")
    code = "import sys; from machineos.host.unit import nft; nft.apply(sys.argv[1])"
    result = machine.python(machine.host, code, bad, check=False)
    assert result.status != 0
    assert b"ToolError" in result.stderr
    assert machine.run(machine.host, "nft", "list", "ruleset").text == before


def run_ip(machine: Machine, space: str, *words: str) -> None:
    machine.run(space, "ip", *words)
