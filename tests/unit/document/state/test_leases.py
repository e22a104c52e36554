"""Addresses stay with their services, whoever comes and goes."""

from __future__ import annotations

import hashlib
import json
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.core.serviceid import ServiceId, ServiceName
from machineos.document.state.leases import (
    NO_LEASES,
    Lease,
    Leases,
    Space,
    assign_addresses,
    assign_numbers,
    parse_leases,
)
from machineos.errors import DocumentError

NET4, NET6 = IPv4Network("10.0.3.0/24"), IPv6Network("fd00::/64")
SPACE = Space(NET4, NET6, range(3, 255), frozenset({IPv4Address("10.0.3.1"), NET6[1]}))
NAMES = st.integers(0, 400).map(lambda number: ServiceId(f"s{number}"))
SETS = st.frozensets(NAMES, max_size=60)
SMALL = range(3, 9)


def ids(*names: str) -> tuple[ServiceId, ...]:
    return tuple(ServiceId(name) for name in names)


def first_choice(name: str, size: int) -> int:
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") % size


def test_the_first_choice_follows_from_the_id_alone() -> None:
    for name in ("web", "registry", "a.b_c-d"):
        (service,) = ids(name)
        found = assign_numbers({}, {service}, space=range(3, 255))
        assert found == {service: 3 + first_choice(name, 252)}


@given(SETS)
def test_the_order_of_services_means_nothing(services: frozenset[ServiceId]) -> None:
    one = assign_numbers({}, sorted(services), space=SPACE.numbers)
    other = assign_numbers({}, sorted(services, reverse=True), space=SPACE.numbers)
    assert one == other


@given(st.lists(SETS, max_size=8), st.frozensets(st.integers(0, 260), max_size=20))
def test_a_number_stays_with_its_service(
    history: list[frozenset[ServiceId]], taken: frozenset[int]
) -> None:
    """Adding one never changes another's, and neither does removing one."""
    numbers: dict[ServiceId, int] = {}
    for wanted in history:
        after = assign_numbers(numbers, wanted, space=SPACE.numbers, taken=taken)
        for service in wanted & set(numbers):
            assert after[service] == numbers[service]
        assert len(set(after.values())) == len(after)
        assert not set(after.values()) & taken
        assert set(after.values()) <= set(SPACE.numbers)
        assert wanted <= set(after)
        numbers = after
    # Whoever went away and comes back finds its number, as long as nobody needed it.
    back = assign_numbers(numbers, set(numbers), space=SPACE.numbers, taken=taken)
    assert back == numbers


@given(SETS, SETS)
def test_a_freed_number_is_given_last(
    gone: frozenset[ServiceId], new: frozenset[ServiceId]
) -> None:
    before = assign_numbers({}, gone, space=SPACE.numbers)
    after = assign_numbers(before, new - gone, space=SPACE.numbers)
    assert all(after[service] == number for service, number in before.items())


def test_the_oldest_goes_first_when_nothing_else_is_free() -> None:
    old = dict(zip(ids("a", "b", "c", "d", "e", "f"), SMALL, strict=True))
    after = assign_numbers(old, ids("b", "x", "y"), space=SMALL)
    first, second = sorted(
        ids("x", "y"), key=lambda one: hashlib.sha256(one.text.encode()).digest()
    )
    assert after[first] == 3  # of a
    assert after[second] == 5  # of c, b being there
    assert {*ids("b", "d", "e", "f"), first, second} == set(after)
    assert [after[one] for one in ids("b", "d", "e", "f")] == [4, 6, 7, 8]


def test_who_comes_when_all_are_in_use_gets_none() -> None:
    here = ids("a", "b", "c", "d", "e", "f", "g")
    found = assign_numbers({}, here, space=SMALL)
    assert len(found) == 6
    assert sorted(found.values()) == list(SMALL)
    again = assign_numbers(found, here, space=SMALL)
    assert again == found


def test_what_is_taken_or_outside_is_not_kept() -> None:
    (one, two, three) = ids("a", "b", "c")
    found = assign_numbers({one: 3, two: 4, three: 99}, (one, three), space=SMALL, taken={3})
    assert found[two] == 4
    assert found[one] not in {3, 4}
    assert found[three] in SMALL
    assert next(iter(found)) == two  # the others are new, so younger


def test_a_probe_goes_on_to_the_end_and_around() -> None:
    (service,) = ids("a")
    start = first_choice("a", len(SMALL))
    order = [*SMALL[start:], *SMALL[:start]]
    for count in range(len(SMALL)):
        found = assign_numbers({}, (service,), space=SMALL, taken=order[:count])
        assert found == {service: order[count]}


# --- addresses of both families


def assign(existing: Leases, *names: str, only4: str = "", only6: str = "") -> Leases:
    both = ids(*names)
    return assign_addresses(
        existing,
        ipv4=(*both, *(ids(only4) if only4 else ())),
        ipv6=(*both, *(ids(only6) if only6 else ())),
        space=SPACE,
    )


def table(leases: Leases) -> dict[str, tuple[str, str]]:
    return {lease.service: (lease.ipv4, lease.ipv6) for lease in leases.leases}


def test_both_addresses_have_one_host_number() -> None:
    number = 3 + first_choice("web", 252)
    found = assign(NO_LEASES, "web")
    assert found == Leases(1, (Lease("web", f"10.0.3.{number}", f"fd00::{number:x}"),))


def test_an_address_is_chosen_only_where_one_is_wanted() -> None:
    number = 3 + first_choice("six", 252)
    found = table(assign(NO_LEASES, only4="four", only6="six"))
    assert found["four"][1] == ""
    assert found["six"] == ("", f"fd00::{number:x}")


def test_the_next_address_in_ipv6_is_256_further() -> None:
    number = 3 + first_choice("web", 252)
    taken = {NET6[number], NET6[number + 256]}
    space = Space(NET4, NET6, range(3, 255), frozenset(taken))
    found = assign_addresses(NO_LEASES, ipv4=ids("web"), ipv6=ids("web"), space=space)
    assert table(found) == {"web": (f"10.0.3.{number}", str(NET6[number + 512]))}


def test_an_address_that_somebody_names_goes_to_them() -> None:
    before = assign(NO_LEASES, "a", "b")
    (four, six) = table(before)["a"]
    space = Space(NET4, NET6, range(3, 255), frozenset({IPv4Address(four), IPv6Address(six)}))
    after = assign_addresses(before, ipv4=ids("a", "b"), ipv6=ids("a", "b"), space=space)
    assert table(after)["b"] == table(before)["b"]
    assert table(after)["a"][0] not in {four, ""}
    assert table(after)["a"][1] not in {six, ""}


def test_leases_of_another_network_do_not_count() -> None:
    before = Leases(1, (Lease("web", "10.9.9.9", "fd99::9"),))
    assert assign(before, "web") == assign(NO_LEASES, "web")


@given(st.lists(SETS, max_size=6))
def test_addresses_stay_through_any_history(history: list[frozenset[ServiceId]]) -> None:
    leases = NO_LEASES
    for wanted in history:
        after = assign_addresses(leases, ipv4=wanted, ipv6=wanted, space=SPACE)
        old, new = table(leases), table(after)
        for service in wanted:
            if service.text in old:
                assert new[service.text] == old[service.text]
            assert IPv4Address(new[service.text][0]) in NET4
            assert IPv6Address(new[service.text][1]) in NET6
        for column in (0, 1):
            values = [row[column] for row in new.values()]
            assert len(set(values)) == len(values)
        assert parse_leases(after.to_bytes()) == after
        leases = after


def test_a_lease_in_ipv6_goes_with_the_one_in_ipv4() -> None:
    """What is kept for services that are away is bounded by the addresses in IPv4."""
    names = [f"s{number}" for number in range(252)]
    full = assign(NO_LEASES, *names)
    after = assign(full, "new")
    assert len(after.leases) == 252
    assert full.leases[0].service not in table(after)
    assert table(after)["new"][0] == full.leases[0].ipv4
    assert len({lease.ipv6 for lease in after.leases}) == 252
    away = assign(Leases(1, (Lease("gone", "", "fd00::9"),)), "new")
    assert "gone" not in table(away)


def test_the_oldest_stands_first() -> None:
    first = assign(NO_LEASES, "b")
    second = assign(first, "b", "a", "c")
    assert second.leases[0] == first.leases[0]
    assert {lease.service for lease in second.leases} == {"a", "b", "c"}


# --- the document


def document(**changes: object) -> bytes:
    lease = {"service": "web", "ipv4": "10.0.3.4", "ipv6": "fd00::4", **changes}
    return json.dumps({"version": 1, "leases": [lease]}).encode()


def test_what_is_written_is_read() -> None:
    leases = Leases(1, (Lease("web", "10.0.3.4", "fd00::4"), Lease("10.0.3.4", "", "fd00::5")))
    data = leases.to_bytes()
    assert data.endswith(b"\n")
    assert json.loads(data)["version"] == 1
    assert parse_leases(data) == leases
    assert leases.to_bytes() == data
    assert parse_leases(document()) == Leases(1, (Lease("web", "10.0.3.4", "fd00::4"),))


@pytest.mark.parametrize(
    ("changes", "path", "words"),
    [
        ({"service": "../x"}, "leases[0].service", f"'../x' is not {ServiceName.WHAT}"),
        ({"ipv4": "10.0.3.300"}, "leases[0].ipv4", "'10.0.3.300' is no IPv4Address"),
        ({"ipv4": "fd00::4"}, "leases[0].ipv4", "'fd00::4' is no IPv4Address"),
        ({"ipv6": "10.0.3.4"}, "leases[0].ipv6", "'10.0.3.4' is no IPv6Address"),
        ({"ipv6": "fd00:0::4"}, "leases[0].ipv6", "'fd00:0::4' is no IPv6Address"),
        ({"ipv4": "x" * 99}, "leases[0].ipv4", f"{'x' * 80!r} is no IPv4Address"),
        ({"service": "X" * 99}, "leases[0].service", f"{'X' * 80!r} is not {ServiceName.WHAT}"),
        ({"service": ""}, "leases[0].service", "is missing or empty"),
    ],
)
def test_faults_name_their_path(changes: dict[str, object], path: str, words: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_leases(document(**changes), name="leases.json")
    assert [str(fault) for fault in caught.value.faults] == [f"{path}: {words}"]
    assert str(caught.value).startswith("leases.json: ")


@pytest.mark.parametrize("key", ["service", "ipv4", "ipv6"])
def test_nothing_is_there_twice(key: str) -> None:
    first = {"service": "a", "ipv4": "10.0.3.4", "ipv6": "fd00::4"}
    second = {"service": "b", "ipv4": "10.0.3.5", "ipv6": "fd00::5", key: first[key]}
    data = json.dumps({"version": 1, "leases": [first, second]}).encode()
    with pytest.raises(DocumentError) as caught:
        parse_leases(data)
    assert [str(fault) for fault in caught.value.faults] == [
        f"leases[1].{key}: {first[key]!r} is leased twice"
    ]


def test_all_faults_at_once() -> None:
    data = {"version": 2, "leases": [{"service": "X", "ipv4": "a", "ipv6": "b"}]}
    with pytest.raises(DocumentError) as caught:
        parse_leases(json.dumps(data).encode())
    assert {fault.line for fault in caught.value.faults} == {0}
    paths = [fault.path for fault in caught.value.faults]
    assert paths == ["version", "leases[0].service", "leases[0].ipv4", "leases[0].ipv6"]
    assert caught.value.faults[0].message == "is 2, only 1 is known"
    assert str(caught.value).startswith("leases: ")


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"version":1,"leases":[],"more":1}', b" " * ((1 << 20) + 1)]
)
def test_another_shape(data: bytes) -> None:
    with pytest.raises(DocumentError):
        parse_leases(data)


def test_the_largest_document() -> None:
    data = document()
    assert parse_leases(data + b" " * ((1 << 20) - len(data))).leases
    with pytest.raises(DocumentError, match="1048576"):
        parse_leases(data + b" " * ((1 << 20) + 1 - len(data)))
