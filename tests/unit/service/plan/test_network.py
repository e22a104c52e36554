from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.core.serviceid import ServiceId
from machineos.document.model.install import Network, Port
from machineos.document.rules.network import GATEWAY4, is_automatic
from machineos.document.state.leases import NO_LEASES, Lease, Leases
from machineos.service.plan.network import (
    BRIDGE_ADDRESSES,
    SPACE,
    Attachment,
    Forward,
    Link,
    NetworkPlan,
    Refusal,
    Wanted,
    plan_network,
)
from unit.service.plan.cases import SIMPLE, forward

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = st.integers(0, 300).map(lambda number: f"s{number}")
SETS = st.frozensets(NAMES, max_size=40)


def simple(ipv4: str = "", ipv6: str = "", *ports: Port) -> Network:
    return Network(type="simple", ipv4=ipv4, ipv6=ipv6, ports=ports)


def plan(networks: Mapping[str, Network], leases: Leases = NO_LEASES) -> NetworkPlan:
    wanted = [Wanted(ServiceId(name), each, "group") for name, each in networks.items()]
    return plan_network(wanted, leases)


def addresses(found: NetworkPlan) -> dict[str, tuple[str, str]]:
    return {str(name): (str(one.ipv4), str(one.ipv6)) for name, one in found.attachments}


def whys(found: NetworkPlan) -> dict[str, str]:
    return {str(each.service): each.why for each in found.refused}


def test_the_network_of_the_services() -> None:
    assert BRIDGE_ADDRESSES == ("10.0.3.1/24", "fd6d:6f73:3000:3::1/64")
    assert (SPACE.numbers.start, SPACE.numbers.stop) == (3, 255)
    assert [SPACE.ipv4[number] for number in SPACE.numbers] == list(
        filter(is_automatic, SPACE.ipv4)
    )
    assert SPACE.taken == {IPv4Address("10.0.3.1"), IPv6Address("fd6d:6f73:3000:3::1")}


def test_what_is_asked_for_is_given_and_the_rest_is_chosen() -> None:
    found = plan(
        {
            "a": simple(),
            "b": simple("10.0.3.7/24"),
            "c": simple("", "fd6d:6f73:3000:3::9/64"),
            "d": simple("10.0.3.8/24", "fd6d:6f73:3000:3::8/64"),
            "e": Network(type="none"),
            "f": Network(type="host"),
        }
    )
    given_to = addresses(found)
    assert given_to["b"][0] == "10.0.3.7/24"
    assert given_to["c"][1] == "fd6d:6f73:3000:3::9/64"
    assert given_to["d"] == ("10.0.3.8/24", "fd6d:6f73:3000:3::8/64")
    assert given_to["e"] == given_to["f"] == ("None", "None")
    four, six = given_to["a"]
    assert four.startswith("10.0.3.")
    assert six == f"fd6d:6f73:3000:3::{int(four[7:-3]):x}/64"
    assert found.attachment(ServiceId("e")) == Attachment("none")
    assert found.attachment(ServiceId("f")) == Attachment("host")
    assert found.attachment(ServiceId("absent")) is None
    assert found.why(ServiceId("a")) == ""
    assert {lease.service for lease in found.leases.leases} == {"a", "b", "c"}
    assert found.refused == ()


def test_hardware_addresses_follow_from_the_address() -> None:
    assert SIMPLE.hardware == "00:16:3e:00:03:63"
    assert Attachment("none").hardware == "00:16:3e:00:00:00"


def test_there_are_252_automatic_addresses_and_then_none() -> None:
    found = plan({f"s{i}": simple() for i in range(253)})
    assert len(found.attachments) == 252
    why = "service s252: network: no address is free in 10.0.3.0/24"
    assert found.refused == (Refusal(ServiceId("s252"), "address-room", why),)
    assert {int(str(one.ipv4)[7:-3]) for _, one in found.attachments} == set(range(3, 255))


def test_a_port_of_one_without_an_address_leads_nowhere() -> None:
    ports = simple("", "", Port(host=80, container=1))
    full = {f"s{i}": simple() for i in range(252)}
    found = plan({**full, "late": ports, "s252": simple()})
    assert set(whys(found)) == {"late", "s252"}
    assert found.forwards == ()


def test_who_has_an_address_keeps_it_when_there_are_too_few() -> None:
    full = {f"s{i}": simple() for i in range(252)}
    first = plan(full)
    found = plan({"new": simple(), **full}, first.leases)
    assert set(whys(found)) == {"new"}
    assert addresses(found) == addresses(first)
    # An address that only IPv6 was leased with is none of those that run out.
    six = Leases(1, (Lease("s251", ipv6="fd6d:6f73:3000:3::9"),))
    assert set(whys(plan({"new": simple(), **full}, six))) == {"s251"}


@pytest.mark.parametrize(
    ("network", "why"),
    [
        (
            simple("10.0.3.1/24"),
            "service second: network.ipv4: address 10.0.3.1 is taken by the host",
        ),
        (
            simple("10.0.3.99/24"),
            "service second: network.ipv4: address 10.0.3.99 is taken by first",
        ),
        (simple("10.0.4.9/24"), "network.ipv4: 10.0.4.9/24 is not in 10.0.3.0/24, the network of"),
        (simple("10.0.3.9/16"), "network.ipv4: 10.0.3.9/16 is not in 10.0.3.0/24, the network of"),
        (simple("10.0.3.0/24"), "network.ipv4: 10.0.3.0 is not the address of one host"),
        (simple("10.0.3.255/24"), "network.ipv4: 10.0.3.255 is not the address of one host"),
        (simple("10.0.3/24"), "network.ipv4: '10.0.3/24' is not an IPv4 address with prefix"),
        (simple("10.0.3.9"), "network.ipv4: '10.0.3.9' is not an IPv4 address with prefix"),
        (simple("", "y" * 9), f"network.ipv6: {'y' * 9!r} is not an IPv6 address with prefix"),
        (simple("", "fd00::9/64"), "network.ipv6: fd00::9/64 is not in fd6d:6f73:3000:3::/64"),
        (simple("", "fd6d:6f73:3000:3::1/64"), "fd6d:6f73:3000:3::1 is taken by the host"),
        (simple("", "fd6d:6f73:3000:3::63/64"), "fd6d:6f73:3000:3::63 is taken by first"),
        (
            simple("", "", Port(host=80, container=1)),
            "service second: network.ports[0].host: tcp port 80 of the host is taken by first",
        ),
        (
            simple("", "", Port(host=90, container=1), Port(host=90, container=2)),
            "service second: network.ports[1].host: tcp port 90 of the host is taken by second",
        ),
        (
            Network(type="host", ports=(Port(host=1, container=1),)),
            "network.ports: a network of type host forwards no ports",
        ),
        (
            Network(type="none", ipv4="10.0.3.9/24"),
            "network.ipv4: a network of type none takes no address",
        ),
        (
            simple("", "", Port(host=0, container=1)),
            "network.ports[0].host: 0 is not a port (1 to 65535)",
        ),
    ],
)
def test_contradictions_are_refused_alone(network: Network, why: str) -> None:
    first = simple("10.0.3.99/24", "fd6d:6f73:3000:3::63/64", Port(host=80, container=5000))
    found = plan({"first": first, "second": network, "third": simple()})
    assert why in found.why(ServiceId("second"))
    assert "line " not in found.why(ServiceId("second"))
    assert list(whys(found)) == ["second"]
    assert found.attachment(ServiceId("second")) is None
    assert {str(name) for name, _ in found.attachments} == {"first", "third"}
    assert [str(item.service) for item in found.forwards] == ["first"]


def test_who_names_an_address_is_looked_at_first() -> None:
    port = Port(host=80, container=1)
    for named in (simple("10.0.3.7/24", "", port), simple("", "fd6d:6f73:3000:3::7/64", port)):
        found = plan({"a": simple("", "", port), "b": named})
        assert whys(found) == {
            "a": "service a: network.ports[0].host: tcp port 80 of the host is taken by b"
        }


def test_what_is_asked_for_comes_first_wherever_it_stands() -> None:
    alone = addresses(plan({"a": simple()}))["a"][0]
    found = plan({"a": simple(), "b": simple(alone)})
    assert addresses(found)["b"][0] == alone
    assert addresses(found)["a"][0] != alone
    six = addresses(plan({"a": simple()}))["a"][1]
    found = plan({"a": simple(), "b": simple("", six)})
    assert addresses(found)["b"][1] == six
    # The next one with that host number.
    assert IPv6Address(addresses(found)["a"][1][:-3]) == IPv6Address(six[:-3]) + 256


def test_an_address_of_another_mosd_stays() -> None:
    first = plan({"a": simple(), "b": simple(), "c": simple("10.0.3.7/24")})
    second = plan({"b": simple(), "d": simple(), "c": simple("10.0.3.7/24")}, first.leases)
    for name in ("b", "c"):
        assert addresses(second)[name] == addresses(first)[name]
    assert addresses(second)["d"][0] != addresses(first)["a"][0]


@given(SETS, SETS)
def test_who_comes_and_goes_changes_nobody_elses_address(
    before: frozenset[str], after: frozenset[str]
) -> None:
    first = plan({name: simple() for name in before})
    second = plan({name: simple() for name in after}, first.leases)
    for name in before & after:
        assert addresses(second)[name] == addresses(first)[name]


@given(
    st.lists(
        st.one_of(st.just(""), st.integers(0, 255).map(lambda n: f"10.0.3.{n}/24")), max_size=40
    )
)
def test_no_two_services_share_an_address(texts: list[str]) -> None:
    services = {f"s{i}": simple(text) for i, text in enumerate(texts)}
    found = plan(services)
    for key in ("ipv4", "ipv6", "hardware"):
        values = [getattr(item, key) for _, item in found.attachments]
        assert len(values) == len(set(values))
    assert {str(name) for name, _ in found.attachments} | set(whys(found)) == set(services)
    for _, item in found.attachments:
        assert item.ipv4 is not None
        assert item.ipv4.ip in GATEWAY4.network
    assert plan(services) == found
    assert plan(services, found.leases) == found


def test_the_same_port_number_for_tcp_and_udp_is_no_conflict() -> None:
    found = plan(
        {
            "b": simple("10.0.3.9/24", "", Port(host=53, container=5353, protocol="udp")),
            "a": simple("10.0.3.8/24", "", Port(host=53, container=53), Port(host=9, container=10)),
        }
    )
    assert not found.refused
    assert [
        (str(item.service), item.protocol, item.host, item.port) for item in found.forwards
    ] == [
        ("a", "tcp", 9, 10),
        ("a", "tcp", 53, 53),
        ("b", "udp", 53, 5353),
    ]
    for item in found.forwards:
        attached = found.attachment(item.service)
        assert attached is not None
        assert attached.ipv4 is not None
        assert attached.ipv6 is not None
        assert (item.ipv4, item.ipv6) == (attached.ipv4.ip, attached.ipv6.ip)


def test_in_the_network_of_the_host_runs_only_who_has_ids_of_its_own() -> None:
    host = Network(type="host")
    groups = {"a": "", "b": "none", "c": "g"}
    wanted = [Wanted(ServiceId(name), host, group) for name, group in groups.items()]
    found = plan_network(wanted)
    why = "nsgroup: a container in the network of the host needs an nsgroup"
    assert whys(found) == {"a": f"service a: {why}", "b": f"service b: {why}"}
    assert [str(name) for name, _ in found.attachments] == ["c"]


def test_links_are_those_of_services_that_can_run() -> None:
    found = plan({"a": simple("10.0.3.9/24"), "b": simple(), "c": Network(type="host")})
    (link,) = found.links({ServiceId("a"), ServiceId("c"), ServiceId("absent")})
    six = addresses(found)["a"][1].removesuffix("/64")
    assert link == Link(
        "mv0a000309", "00:16:3e:00:03:09", IPv4Address("10.0.3.9"), IPv6Address(six)
    )
    assert link.local == IPv6Address("fe80::216:3eff:fe00:309")
    assert found.links(()) == ()


def test_a_forward_is_a_value() -> None:
    one = forward("tcp", 80, 5000, 9)
    assert one == Forward(
        ServiceId("web"),
        "tcp",
        80,
        5000,
        IPv4Address("10.0.3.9"),
        IPv6Address("fd6d:6f73:3000:3::9"),
    )
