"""What is routed, what reaches the host, and who can pretend to be whom: with sockets, in network
namespaces. Everything that is refused is asked a second time without the tables, and answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from unit.service.system.machine import Machine, forward, ip, running_machine
from unit.service.system.talk import (
    GUEST,
    LISTEN,
    RECORD,
    Question,
    ask,
    ask_all,
    say,
    silent,
    words,
)
from waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.system, pytest.mark.tool("nft"), pytest.mark.tool("ip")]

SIX = "fd6d:6f73:3000:3"
METADATA = (
    "169.254.169.254", "100.100.100.200", "168.63.129.16", "fd00:ec2::254", "fd20:ce::254"
)  # fmt: skip
PORTS = tuple(forward(protocol, host, 5000, 9) for protocol in ("tcp", "udp") for host in (80, 53))
HOST = ("10.0.3.1", "192.0.2.1", "198.51.100.1", f"{SIX}::1", "2001:db8::1")


def asked(
    who: str, kinds: str, addresses: tuple[str, ...], answer: str, *, port: int = 80, uid: int = 0
) -> dict[str, Question]:
    return {
        f"{who}{uid or ''} {kind} {address} {port}": Question(
            who, kind, address, answer, port=port, uid=uid
        )
        for kind in kinds.split()
        for address in addresses
    }


# Two services, ``web`` and ``other``; ``outside`` and ``beyond``, two networks outside. The host
# listens on 90, the service on 5000, which is 80 and 53 of the host.
REFUSED = {
    **asked("other", "tcp", HOST, "own", port=90),
    **asked("other", "udp", ("10.0.3.1", f"{SIX}::1"), "own", port=90),
    **asked("other", "tcp udp", ("10.0.3.9", f"{SIX}::9"), "web", port=5000),
    **asked("other", "tcp", METADATA, "foreign"),
    **asked("outside", "tcp udp", ("198.51.100.2", "2001:db8:1::2"), "beyond"),
    **asked("beyond", "tcp udp", ("192.0.2.2", "2001:db8::2"), "foreign"),
    **asked("beyond", "tcp udp", ("10.0.3.9", f"{SIX}::9"), "web", port=5000),
    # A service that shares the network of the host. Connections of several paths (MPTCP) are made
    # by the kernel, so nobody owns them.
    **asked("host", "tcp mptcp", METADATA, "foreign", uid=GUEST),
    **asked("host", "tcp udp mptcp", ("10.0.3.9", f"{SIX}::9"), "web", port=5000, uid=GUEST),
}
ANSWERED = {
    **asked("other", "tcp udp", ("192.0.2.1", "2001:db8::1"), "web"),
    **asked("other", "tcp udp", ("192.0.2.2", "2001:db8::2"), "foreign 192.0.2.1"),
    **asked("other", "tcp", ("168.63.129.16",), "names", port=53),
    **asked("host", "tcp udp", ("127.0.0.1", "192.0.2.1"), "web", uid=GUEST),
    **asked("host", "tcp udp", ("192.0.2.2", "2001:db8::2"), "foreign", uid=GUEST),
    **asked("host", "tcp", ("168.63.129.16",), "names", port=53, uid=GUEST),
    **asked("host", "tcp", ("169.254.169.254", "fd00:ec2::254"), "foreign"),
    **asked("host", "tcp udp", ("10.0.3.9", f"{SIX}::9"), "web", port=5000),
    # Through a network card that came after the tables.
    **asked("beyond", "tcp udp", ("198.51.100.1", "2001:db8:1::1"), "web"),
    # The host's resolver is not who has forwarded port 53.
    **asked("host", "tcp", ("127.0.0.53",), "resolver", port=53),
    **asked("host", "tcp udp", ("127.0.0.1",), "web", port=53),
}
ANSWERED = {
    name: Question(
        one.who, one.kind, one.address,
        one.answer.replace("192.0.2.1", "2001:db8::1") if ":" in one.address else one.answer,
        one.port, one.uid,
    )
    for name, one in ANSWERED.items()
}  # fmt: skip


@dataclass
class Town:
    """A machine with neighbours, and what they were answered."""

    machine: Machine
    spaces: dict[str, str]
    walled: dict[str, str]
    open: dict[str, str]


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    """Everything was asked, first with the tables and then without."""
    with running_machine() as machine:
        spaces = {"host": machine.host, "outside": machine.outside}
        for name, number in (("web", "9"), ("other", "a")):
            four = int(number, 16)
            spaces[name] = machine.add_container(f"10.0.3.{four}/24", f"{SIX}::{number}/64")
        machine.forward(*PORTS)
        spaces["beyond"] = machine.add_outside("up1")
        for family, via in (("-4", "192.0.2.2"), ("-6", "2001:db8::2")):
            ip("-n", machine.host, family, "route", "add", "default", "via", via)
        for address in METADATA:
            ip("-n", machine.outside, "addr", "add", address, "dev", "lo")
        for where, port, text in (
            ("web", "5000", "web"),
            ("host", "90", "own"),
            ("host", "53", "resolver"),
            ("outside", "80", "foreign"),
            ("outside", "53", "names"),
            ("beyond", "80", "beyond"),
        ):
            machine.spawn(spaces[where], LISTEN, port, text)
        machine.wait_for_link_addresses()
        walled = ask_all(machine, spaces, ANSWERED, "60") | ask_all(machine, spaces, REFUSED, "2")
        machine.take_walls_away()
        yield Town(machine, spaces, walled, ask_all(machine, spaces, REFUSED, "60"))


@pytest.mark.parametrize("name", ANSWERED)
def test_what_is_meant_to_be_answered(town: Town, name: str) -> None:
    assert town.walled[name].startswith(ANSWERED[name].answer)


@pytest.mark.attack(
    "service",
    "reaches the host, its neighbours, 169.254.169.254, or another network through the machine",
    "dropped",
)
@pytest.mark.parametrize("name", REFUSED)
def test_what_nobody_may_reach(town: Town, name: str) -> None:
    assert town.open[name].startswith(REFUSED[name].answer)
    assert town.walled[name] == ""


OTHERS = ("10.0.3.9", "203.0.113.7", f"{SIX}::9", "2001:db8::77")


@pytest.mark.attack(
    "service",
    "sends from another's address, with IP_FREEBIND",
    "dropped at its own port",
)
@pytest.mark.parametrize(
    ("uid", "who", "sources"),
    [(0, "service", OTHERS), (GUEST, "host", (f"{SIX}::9", "2001:db8::77"))],
    ids=["simple", "host"],
)
def test_nobody_speaks_outside_as_somebody_else(
    machine: Machine, tmp_path: Path, uid: int, who: str, sources: tuple[str, ...]
) -> None:
    """Any address of IPv6 may be spoken from without a capability (IPV6_FREEBIND); an address of
    IPv4 only if one has it, which root of a network can see to."""
    service = machine.add_container("10.0.3.10/24", f"{SIX}::a/64")
    machine.forward()
    space = service if who == "service" else machine.host
    for source in sources:
        if ":" not in source:
            ip("-n", space, "addr", "add", f"{source}/32", "dev", "lo")
    heard = tmp_path / "heard"
    heard.touch()
    outside = ("192.0.2.2", "2001:db8::2")
    for address in outside:
        machine.spawn(machine.outside, RECORD, str(heard), address)
    machine.wait_for_link_addresses()

    def say_all(text: str) -> set[str]:
        for number, source in enumerate(sources):
            say(machine, space, f"{text}{number}", outside[":" in source], source=source, uid=uid)
        return {f"{text}{number}" for number in range(len(sources))}

    for address in outside:
        say(machine, space, "honest", address, uid=uid)
    wait_for(lambda: words(heard) == ["honest"] * 2)
    say_all("walled")
    machine.take_walls_away()
    wanted = {"honest", *say_all("open")}
    wait_for(lambda: wanted <= set(words(heard)))
    assert set(words(heard)) == wanted


@pytest.mark.attack(
    "registry",
    "sends packets to the machine as one of its services",
    "dropped",
)
def test_nobody_outside_speaks_as_a_service(machine: Machine, tmp_path: Path) -> None:
    web = machine.add_container("10.0.3.9/24", f"{SIX}::9/64")
    machine.forward(forward("udp", 81, 6000, 9))
    ip("-n", machine.outside, "addr", "add", "10.0.3.10/32", "dev", "lo")
    heard = tmp_path / "heard"
    heard.touch()
    for address in ("10.0.3.9", f"{SIX}::9"):
        machine.spawn(web, RECORD, str(heard), address)
    machine.wait_for_link_addresses()

    def say_both(text: str, *sources: str) -> None:
        for address, source in zip(("192.0.2.1", "2001:db8::1"), sources, strict=True):
            say(machine, machine.outside, text, address, source=source, port=81)

    say_both("honest", "", "")
    wait_for(lambda: words(heard) == ["honest"] * 2)
    say_both("walled", "10.0.3.10", f"{SIX}::a")
    machine.run(machine.host, "nft", "flush", "chain", "inet", "machineos", "martians")
    say_both("open", "10.0.3.10", f"{SIX}::a")
    wait_for(lambda: words(heard).count("open") == 2)
    assert set(words(heard)) == {"honest", "open"}


def test_a_service_cannot_reach_the_loopback_of_the_host(machine: Machine, tmp_path: Path) -> None:
    """CVE-2020-8558: route_localnet alone would let it. Both tables stand before it."""
    space = machine.add_container("10.0.3.9/24", f"{SIX}::9/64")
    machine.forward()
    heard = tmp_path / "heard"
    heard.touch()
    machine.spawn(machine.host, RECORD, str(heard), "127.0.0.9")
    # Root in the service's own network can make it send anything.
    machine.run(space, "ip", "link", "set", "lo", "down")
    machine.run(space, "ip", "route", "add", "127.0.0.9/32", "via", "10.0.3.1", "src", "10.0.3.9")
    machine.sysctl(space, "ipv4/conf/eth0/route_localnet", "1")
    say(machine, space, "walled", "127.0.0.9")
    machine.run(machine.host, "nft", "delete", "table", "bridge", "machineos")
    machine.run(machine.host, "nft", "flush", "chain", "inet", "machineos", "heard")
    say(machine, space, "second", "127.0.0.9")
    machine.take_walls_away()
    say(machine, space, "open", "127.0.0.9")
    wait_for(lambda: "open" in words(heard))
    assert words(heard) == ["open"]


@pytest.mark.attack(
    "service",
    "speaks as the loopback of the host (CVE-2020-8558)",
    "dropped",
)
def test_a_service_cannot_speak_as_the_loopback_of_the_host(
    machine: Machine, tmp_path: Path
) -> None:
    """A packet from 127.0.0.1: what trusts that address on the host must not get it."""
    space = machine.add_container("10.0.3.9/24", f"{SIX}::9/64")
    machine.forward()
    heard = tmp_path / "heard"
    heard.touch()
    machine.spawn(machine.host, RECORD, str(heard), "10.0.3.1")
    machine.run(space, "ip", "link", "set", "lo", "down")
    machine.sysctl(space, "ipv4/conf/eth0/route_localnet", "1")
    machine.run(space, "ip", "addr", "add", "127.0.0.66/32", "dev", "eth0")
    # Or it would ask where the host is as 127.0.0.66, and be told nothing.
    say(machine, space, "unheard", "192.0.2.2")
    wait_for(lambda: "lladdr" in machine.run(space, "ip", "neigh", "show", "10.0.3.1").text)
    say(machine, space, "walled", "10.0.3.1", source="127.0.0.66")
    machine.run(machine.host, "nft", "delete", "table", "bridge", "machineos")
    machine.run(machine.host, "nft", "flush", "chain", "inet", "machineos", "heard")
    say(machine, space, "second", "10.0.3.1", source="127.0.0.66")
    say(machine, space, "honest", "10.0.3.1")
    machine.take_walls_away()
    say(machine, space, "open", "10.0.3.1", source="127.0.0.66")
    wait_for(lambda: "open" in words(heard))
    assert words(heard) == ["honest", "open"]


def test_nothing_is_left_switched_on(machine: Machine) -> None:
    """With the last service that needs it, routing goes, for every link and for those to come."""
    machine.add_container("10.0.3.9/24", f"{SIX}::9/64")
    four = [f"ipv4/conf/{name}/forwarding" for name in ("default", "up0", "mos0")]
    names = [*four, "ipv6/conf/all/forwarding", "ipv4/conf/mos0/route_localnet"]
    before = {name: machine.sysctl(machine.host, name) for name in names}
    assert set(before.values()) == {"0"}
    machine.forward()
    assert {machine.sysctl(machine.host, name) for name in names} == {"1"}
    # By link, not for all: lo and the ends of the services' links have no part in it.
    assert machine.sysctl(machine.host, "ipv4/ip_forward") == "0"
    assert machine.sysctl(machine.host, "ipv4/conf/lo/forwarding") == "0"
    machine.add_outside("up1")
    assert machine.sysctl(machine.host, "ipv4/conf/up1/forwarding") == "1"
    machine.forward(links=[])
    after = [*names, "ipv4/conf/up1/forwarding"]
    assert {machine.sysctl(machine.host, name) for name in after} == {"0"}
    for name in ("all/accept_redirects", "all/send_redirects", "mos0/send_redirects"):
        assert machine.sysctl(machine.host, f"ipv4/conf/{name}") == "0"
    # The tables stay, and with them the port is dead.
    assert silent(machine, machine.extra[0], "tcp", "10.0.3.1")


def test_tables_are_replaced_while_connections_go_on(machine: Machine) -> None:
    """A service that comes or goes costs the others nothing."""
    web = machine.add_container("10.0.3.9/24", f"{SIX}::9/64")
    ports = (forward("tcp", 80, 5000, 9),)
    machine.forward(*ports)
    machine.spawn(web, LISTEN, "5000", "web")
    rules = machine.run(machine.host, "nft", "list", "ruleset").text
    machine.add_container("10.0.3.10/24", f"{SIX}::a/64")
    machine.forward(*ports)
    assert ask(machine, machine.outside, "tcp", "192.0.2.1") == "web 192.0.2.2"
    machine.forward(*ports, links=machine.links[:1])
    assert machine.run(machine.host, "nft", "list", "ruleset").text == rules
