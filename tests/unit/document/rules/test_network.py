"""Networks: what a target may ask for, alone and beside others, and how mosd refuses one alone."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface, ip_address

import pytest

from machineos.document.model.install import Network, NetworkType, ServiceType
from machineos.document.rules import network
from machineos.document.rules.subject import DeclaredTarget
from unit.document.rules.samples import breaches, declaration, port, simple, target

SIX = "fd6d:6f73:3000:3"


def test_the_networks_of_the_bridge_are_these() -> None:
    assert network.BRIDGE == "mos0"
    assert IPv4Interface("10.0.3.1/24") == network.GATEWAY4
    assert IPv6Interface("fd6d:6f73:3000:3::1/64") == network.GATEWAY6
    assert network.gateway(4) == network.GATEWAY4
    assert network.gateway(6) == network.GATEWAY6


def test_automatic_addresses_leave_out_the_hosts_and_the_ends() -> None:
    bridge = [each for each in IPv4Network("10.0.3.0/24") if network.is_automatic(each)]
    assert bridge == [IPv4Address(f"10.0.3.{number}") for number in range(3, 255)]


@pytest.mark.parametrize("text", ["10.0.2.3", "10.0.4.3", "0.0.0.3", "::3", "fd6d:6f73:3000:3::3"])
def test_no_other_address_is_an_automatic_one(text: str) -> None:
    assert not network.is_automatic(ip_address(text))


@pytest.mark.parametrize("kind", ["hostfs", "fs-only"])
def test_only_a_container_has_a_network_of_its_own(kind: ServiceType) -> None:
    own = Network(type="simple")
    assert breaches("network-own", target("x", service_type=kind, network=own)) == [
        ("targets[0].network.type", f"a {kind} target has no network of its own")
    ]
    assert breaches("network-own", target("x", network=own)) == []
    assert breaches("network-own", target(service_type=kind, network=Network(type="host"))) == []


@pytest.mark.parametrize("group", ["", "none"])
def test_who_is_in_the_network_of_the_host_has_ids_of_its_own(group: str) -> None:
    """LXC takes commands there, and obeys the ids of the host."""
    host = Network(type="host")
    assert breaches("network-host-ids", target(), target("b", network=host, nsgroup=group)) == [
        ("targets[1].nsgroup", "a container in the network of the host needs an nsgroup")
    ]
    assert breaches("network-host-ids", target(network=host, nsgroup="g")) == []
    assert breaches("network-host-ids", simple(), target(nsgroup=group)) == []
    root = target("hostfs", service_type="hostfs", network=host, nsgroup=group)
    assert breaches("network-host-ids", root) == []


@pytest.mark.parametrize("kind", ["host", "none"])
def test_only_simple_has_addresses_and_ports(kind: NetworkType) -> None:
    asked = Network(type=kind, ipv4="10.0.3.9/24", ipv6=f"{SIX}::9/64", ports=(port(80),))
    bad = target(network=asked)
    message = f"a network of type {kind} takes no address"
    assert breaches("address-kind", target(), bad) == [
        ("targets[1].network.ipv4", message),
        ("targets[1].network.ipv6", message),
    ]
    assert breaches("ports-kind", target(), bad) == [
        ("targets[1].network.ports", f"a network of type {kind} forwards no ports")
    ]
    good = simple(ipv4="10.0.3.9/24", ipv6=f"{SIX}::9/64", ports=(port(80),))
    assert breaches("address-kind", good) == []
    assert breaches("ports-kind", good, target("b", network=Network(type=kind, ports=()))) == []
    assert breaches("ports-kind", target(network=Network(type=kind, ports=None))) == []


@pytest.mark.parametrize(
    ("version", "text", "rule", "message"),
    [
        (4, "10.0.3.9/24", "", ""),
        (4, "10.0.3.2/24", "", ""),
        (4, "10.0.3.254/24", "", ""),
        (6, f"{SIX}::9/64", "", ""),
        (6, f"{SIX}:ffff:ffff:ffff:ffff/64", "", ""),
        (6, "FD6D:6F73:3000:3::9/64", "", ""),
        (4, "10.0.3.9", "address", "IPv4"),
        (4, "10.0.3.256/24", "address", "IPv4"),
        (4, "010.0.3.9/24", "address", "IPv4"),
        (4, "10.0.3.9/33", "address", "IPv4"),
        (4, "10.0.3.9/255.255.255.0", "address", "IPv4"),
        (4, "10.0.3.9/24 ", "address", "IPv4"),
        (4, "10.0.3.9/1000", "address", "IPv4"),
        (4, f"{SIX}::9/64", "address", "IPv4"),
        (6, "10.0.3.9/24", "address", "IPv6"),
        (6, f"{SIX}::9%eth0/64", "address", "IPv6"),
        (6, f"{SIX}::9", "address", "IPv6"),
        (4, "x" * 80, "address", "IPv4"),
        (4, "10.0.3.9/16", "address-inside", "10.0.3.9/16 is not in 10.0.3.0/24"),
        (4, "10.0.3.9/25", "address-inside", "10.0.3.9/25 is not in 10.0.3.0/24"),
        (4, "10.0.4.9/24", "address-inside", "10.0.4.9/24 is not in 10.0.3.0/24"),
        (4, "127.0.0.2/24", "address-inside", "127.0.0.2/24 is not in 10.0.3.0/24"),
        (6, "fd00::99/64", "address-inside", f"fd00::99/64 is not in {SIX}::/64"),
        (6, f"{SIX}::9/63", "address-inside", f"{SIX}::9/63 is not in {SIX}::/64"),
        (4, "10.0.3.0/24", "address-host", "10.0.3.0 is not the address of one host"),
        (4, "10.0.3.255/24", "address-host", "10.0.3.255 is not the address of one host"),
        (6, f"{SIX}::/64", "address-host", f"{SIX}:: is not the address of one host"),
        (4, "10.0.3.1/24", "address-free", "address 10.0.3.1 is taken by the host"),
        (6, f"{SIX}::1/64", "address-free", f"address {SIX}::1 is taken by the host"),
    ],
)
def test_which_addresses_a_target_can_have(
    version: int, text: str, rule: str, message: str
) -> None:
    key = f"ipv{version}"
    asked = target("b", network=network_of(version, text))
    if rule == "address":
        example = {4: "10.0.3.99/24", 6: f"{SIX}::99/64"}[version]
        shown = repr(text)[:60]
        message = f"{shown} is not an {message} address with prefix (example: {example})"
    if rule == "address-inside":
        message += ", the network of mos0"
    for name in ("address", "address-inside", "address-host", "address-free"):
        expected = [(f"targets[1].network.{key}", message)] if name == rule else []
        assert breaches(name, simple(), asked) == expected, name


def network_of(version: int, text: str) -> Network:
    return Network(type="simple", ipv4=text) if version == 4 else Network(type="simple", ipv6=text)


@pytest.mark.parametrize("version", [4, 6])
def test_the_example_in_the_message_is_good_itself(version: int) -> None:
    asked = target(network=network_of(version, network.EXAMPLES[version]))
    for rule in network.RULES:
        assert rule.faults(declaration(asked)) == []


def test_an_address_is_given_once() -> None:
    four, six = "10.0.3.9/24", f"{SIX}::9/64"
    found = breaches(
        "address-once",
        simple("a", ipv4=four, ipv6=six),
        simple("b", ipv4="10.0.3.10/24"),
        simple("c", ipv4=four, ipv6=f"{SIX}:0::0009/64"),
    )
    assert found == [
        ("targets[2].network.ipv4", "address 10.0.3.9 is taken by a"),
        ("targets[2].network.ipv6", f"address {SIX}::9 is taken by a"),
    ]
    assert breaches("address-once", simple("a"), simple("b")) == []


def test_addresses_run_out() -> None:
    many = [simple(f"t{number}") for number in range(252)]
    assert breaches("address-room", *many) == []
    assert breaches("address-room", *many, simple("b"), simple("c")) == [
        ("targets[252].network", "no address is free in 10.0.3.0/24"),
        ("targets[253].network", "no address is free in 10.0.3.0/24"),
    ]
    # .2 is never given out, so who asks for it takes nothing away; who asks for another does.
    assert breaches("address-room", *many, simple("x", ipv4="10.0.3.2/24")) == []
    assert breaches("address-room", *many, simple("x", ipv4="10.0.3.9/24")) == [
        ("targets[251].network", "no address is free in 10.0.3.0/24")
    ]
    assert breaches("address-room", *many, target("x")) == []
    assert breaches("address-room", *many, simple("x", ipv4="10.0.4.9/24")) == []


def test_what_a_port_can_be() -> None:
    assert breaches("port", simple(ports=(port(1, 65535), port(65535, 1)))) == []
    bad = simple(ports=(port(80), port(0, 65536), port(-1, 70000)))
    assert breaches("port", bad) == [
        ("targets[0].network.ports[1].host", "0 is not a port (1 to 65535)"),
        ("targets[0].network.ports[1].container", "65536 is not a port (1 to 65535)"),
        ("targets[0].network.ports[2].host", "-1 is not a port (1 to 65535)"),
        ("targets[0].network.ports[2].container", "70000 is not a port (1 to 65535)"),
    ]


def test_a_port_of_the_host_leads_to_one_target() -> None:
    found = breaches(
        "port-once",
        simple("a", ports=(port(80), port(80, 2))),
        simple("b", ports=(port(80, protocol="udp"), port(81))),
        simple("c", ports=(port(80), port(81))),
    )
    assert found == [
        ("targets[0].network.ports[1].host", "tcp port 80 of the host is taken by a"),
        ("targets[2].network.ports[0].host", "tcp port 80 of the host is taken by a"),
        ("targets[2].network.ports[1].host", "tcp port 81 of the host is taken by b"),
    ]


def test_how_many_ports_are_forwarded() -> None:
    most = simple("a", ports=tuple(port(number) for number in range(1, 4096)))
    assert breaches("port-count", most, simple("b", ports=(port(5000),))) == []
    found = breaches("port-count", most, simple("b", ports=(port(5000), port(5001), port(5002))))
    assert found == [("targets[1].network.ports[1]", "more than 4096 ports are forwarded")]


# -- as mosd asks


def networks(**services: Network) -> list[DeclaredTarget]:
    return [target(name, network=one, nsgroup="g") for name, one in services.items()]


def test_services_that_fit_together_are_not_refused() -> None:
    asked = networks(
        a=Network(type="simple", ipv4="10.0.3.9/24", ports=(port(80),)),
        b=Network(type="simple", ports=(port(81),)),
        c=Network(type="host"),
    )
    assert network.refusals(asked) == {}
    assert network.refusals([]) == {}


def test_a_service_is_refused_alone_and_the_first_gets_what_two_want() -> None:
    found = network.refusals(
        networks(
            a=Network(type="simple", ports=(port(80),)),
            b=Network(type="simple", ipv4="10.0.4.9/24", ports=(port(81),)),
            c=Network(type="simple", ports=(port(80), port(81))),
            d=Network(type="simple", ports=(port(81),)),
            e=Network(type="simple", ipv6="x", ports=(port(0),)),
            f=Network(type="simple", ports=(port(81),)),
        )
    )
    # What b and c asked for is free again, since they do not run: d gets it.
    assert [(name, fault.rule, fault.message[:20]) for name, fault in found.items()] == [
        ("b", "address-inside", "10.0.4.9/24 is not i"),
        ("e", "address", "'x' is not an IPv6 a"),
        ("c", "port-once", "tcp port 80 of the h"),
        ("f", "port-once", "tcp port 81 of the h"),
    ]
    assert found["f"].message == "tcp port 81 of the host is taken by d"
    assert [(fault.path, fault.line) for fault in found.values()] == [
        ("network.ipv4", 0),
        ("network.ipv6", 0),
        ("network.ports[0].host", 0),
        ("network.ports[0].host", 0),
    ]


def test_many_services_are_more_than_there_are_addresses() -> None:
    many = [simple(f"t{number}") for number in range(254)]
    found = network.refusals(many)
    assert sorted(found) == ["t252", "t253"]
    fault = found["t253"]
    assert (fault.path, fault.message) == ("network", "no address is free in 10.0.3.0/24")


def test_who_has_an_address_is_not_refused_for_one_who_has_none() -> None:
    many = [simple(f"t{number}") for number in range(254)]
    settled = {f"t{number}" for number in range(2, 254)}
    assert sorted(network.refusals(many, settled)) == ["t0", "t1"]
