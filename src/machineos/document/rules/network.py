"""What a network of a target may be, in the one network that a machine has for ``simple``.

Owns the constants of the bridge: its name, its two networks, the addresses that are given out.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from machineos.core.idrange import needs_range
from machineos.document.model.limits import MAX_PORT, MAX_PORTS
from machineos.document.rules.rule import DOCUMENT, Rule
from machineos.document.rules.subject import Declaration
from machineos.errors import Fault

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from machineos.document.rules.rule import Gate
    from machineos.document.rules.subject import DeclaredTarget

    Found = Iterator[tuple[str, str]]

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

BRIDGE = "mos0"
GATEWAY4 = ipaddress.IPv4Interface("10.0.3.1/24")
# From the unique local range (RFC 4193); it never leaves the machine, being masqueraded.
GATEWAY6 = ipaddress.IPv6Interface("fd6d:6f73:3000:3::1/64")
# Host numbers that are given out: the predecessor's began at 3 too, the last is for broadcast.
NUMBERS = range(3, GATEWAY4.network.num_addresses - 1)
EXAMPLES = {4: "10.0.3.99/24", 6: "fd6d:6f73:3000:3::99/64"}
_ALL: tuple[Gate, ...] = (*DOCUMENT, "mosd")


def gateway(version: int) -> Interface:
    """Return the host's own address on the bridge."""
    return GATEWAY4 if version == 4 else GATEWAY6


def parse_address(text: str, version: int) -> Interface | None:
    """Return the interface, None unless ``text`` is exactly ``address/prefix``."""
    if not re.fullmatch(r"[0-9A-Fa-f:.]{2,45}/[0-9]{1,3}", text):
        return None
    try:
        return ipaddress.IPv4Interface(text) if version == 4 else ipaddress.IPv6Interface(text)
    except ValueError:
        return None


def is_automatic(address: Address) -> bool:
    """Whether it is one of those that are given to who asks for none."""
    network = GATEWAY4.network
    return address in network and int(address) - int(network.network_address) in NUMBERS


def address_taken(address: Address, owner: str) -> str:
    """Return the message for an address that ``owner`` has."""
    return f"address {address} is taken by {owner}"


def port_taken(protocol: str, port: int, owner: str) -> str:
    """Return the message for a port of the host that leads to ``owner`` already."""
    return f"{protocol} port {port} of the host is taken by {owner}"


def refusals(services: Sequence[DeclaredTarget], settled: Collection[str] = ()) -> dict[str, Fault]:
    """Return by name what is wrong with the networks of containers that are to run together.

    A service is refused alone: what it asks for is not kept from the others. Of two that want the
    same, the first gets it. Where addresses run out, those in ``settled``, who have one, keep it.
    The paths of the faults begin within the service.
    """
    found: dict[str, Fault] = {}
    for name, fault in _of_services(services, ALONE):
        found.setdefault(name, fault)
    while True:
        left = [service for service in services if service.service_name not in found]
        refused = _of_services(left, (ADDRESS_ONCE, PORT_ONCE))
        if not refused:
            break
        # One by one: who was refused takes nothing from those behind.
        name, fault = refused[0]
        found[name] = fault
    left.sort(key=lambda service: service.service_name not in settled)
    return {**found, **dict(_of_services(left, (ADDRESS_ROOM,)))}


def _of_services(
    services: Sequence[DeclaredTarget], rules: Sequence[Rule[Declaration]]
) -> list[tuple[str, Fault]]:
    """Return the faults of services with their names, in the order of the services."""
    declaration = Declaration(
        version=1, product="", complete=False, targets=tuple(services), storage=()
    )
    found = [_split(fault) for rule in rules for fault in rule.faults(declaration)]
    found.sort(key=lambda item: item[0])
    return [(services[index].service_name, fault) for index, fault in found]


def _split(fault: Fault) -> tuple[int, Fault]:
    """Return which target a fault is about, and the fault with its path within that target."""
    target, _, path = fault.path.partition(".")
    index = int(target.removeprefix("targets[").removesuffix("]"))
    return index, Fault(path, fault.line, fault.message, fault.rule)


def _texts(declaration: Declaration) -> Iterator[tuple[str, DeclaredTarget, int, str]]:
    """Yield every address that is written, with its path, target and IP version."""
    for path, target in declaration.each():
        for version, text in ((4, target.network.ipv4), (6, target.network.ipv6)):
            if text:
                yield f"{path}.network.ipv{version}", target, version, text


def _interfaces(declaration: Declaration) -> Iterator[tuple[str, DeclaredTarget, Interface]]:
    """Yield those of them that can be read."""
    for path, target, version, text in _texts(declaration):
        interface = parse_address(text, version)
        if interface is not None:
            yield path, target, interface


def _inside(declaration: Declaration) -> Iterator[tuple[str, DeclaredTarget, Interface]]:
    """Yield those of them that are in the network of the bridge."""
    for path, target, interface in _interfaces(declaration):
        if interface.network == gateway(interface.version).network:
            yield path, target, interface


def _port_count(declaration: Declaration) -> Found:
    for number, (path, _, _) in enumerate(declaration.ports(), 1):
        if number > MAX_PORTS:
            yield path, f"more than {MAX_PORTS} ports are forwarded"
            return


def _own(declaration: Declaration) -> Found:
    for path, target in declaration.each():
        if target.kind != "container" and target.network.type == "simple":
            yield f"{path}.network.type", f"a {target.kind} target has no network of its own"


def _host_ids(declaration: Declaration) -> Found:
    for path, target in declaration.each():
        in_hosts = target.kind == "container" and target.network.type == "host"
        if in_hosts and not needs_range(target.nsgroup):
            yield f"{path}.nsgroup", "a container in the network of the host needs an nsgroup"


def _address_kind(declaration: Declaration) -> Found:
    for path, target, _, _ in _texts(declaration):
        if target.network.type != "simple":
            yield path, f"a network of type {target.network.type} takes no address"


def _address(declaration: Declaration) -> Found:
    for path, _, version, text in _texts(declaration):
        if parse_address(text, version) is None:
            example = f"(example: {EXAMPLES[version]})"
            yield path, f"{text!r:.60} is not an IPv{version} address with prefix {example}"


def _address_inside(declaration: Declaration) -> Found:
    for path, _, interface in _interfaces(declaration):
        network = gateway(interface.version).network
        if interface.network != network:
            yield path, f"{interface} is not in {network}, the network of {BRIDGE}"


def _address_host(declaration: Declaration) -> Found:
    for path, _, interface in _inside(declaration):
        network = interface.network
        ends = {network.network_address}
        if interface.version == 4:
            ends.add(network.broadcast_address)
        if interface.ip in ends:
            yield path, f"{interface.ip} is not the address of one host"


def _address_free(declaration: Declaration) -> Found:
    for path, _, interface in _inside(declaration):
        if interface.ip == gateway(interface.version).ip:
            yield path, address_taken(interface.ip, "the host")


def _address_once(declaration: Declaration) -> Found:
    taken: dict[Address, tuple[str, str]] = {}
    for path, target, interface in _inside(declaration):
        first, owner = taken.setdefault(interface.ip, (path, target.service_name))
        if first != path:
            yield path, address_taken(interface.ip, owner)


def _address_room(declaration: Declaration) -> Found:
    taken = {interface.ip for _, _, interface in _inside(declaration)}
    free = len(NUMBERS) - sum(map(is_automatic, taken))
    for path, target in declaration.each():
        if target.network.type == "simple" and not target.network.ipv4:
            free -= 1
            if free < 0:
                yield f"{path}.network", f"no address is free in {GATEWAY4.network}"


def _ports_kind(declaration: Declaration) -> Found:
    for path, target in declaration.each():
        if target.network.ports and target.network.type != "simple":
            message = f"a network of type {target.network.type} forwards no ports"
            yield f"{path}.network.ports", message


def _port(declaration: Declaration) -> Found:
    for path, _, port in declaration.ports():
        for key, number in (("host", port.host), ("container", port.container)):
            if not 1 <= number <= MAX_PORT:
                yield f"{path}.{key}", f"{number} is not a port (1 to {MAX_PORT})"


def _port_once(declaration: Declaration) -> Found:
    taken: dict[tuple[str, int], tuple[str, str]] = {}
    for path, target, port in declaration.ports():
        first, owner = taken.setdefault((port.protocol, port.host), (path, target.service_name))
        if first != path:
            yield f"{path}.host", port_taken(port.protocol, port.host, owner)


BOUNDS: tuple[Rule[Declaration], ...] = (
    Rule("port-count", f"At most {MAX_PORTS} ports are forwarded.", DOCUMENT, _port_count),
)
ALONE: tuple[Rule[Declaration], ...] = (
    Rule(
        "network-own", "Only a container has a network of its own.", DOCUMENT, _own
    ),
    # LXC takes commands from a socket of that network, and obeys the ids of the host.
    Rule(
        "network-host-ids", "Who is in the network of the host has ids of its own.", _ALL, _host_ids
    ),
    Rule(
        "address-kind", "Only a network of type simple has addresses.", _ALL, _address_kind
    ),
    Rule("address", "An address is written with its prefix.", _ALL, _address),
    Rule(
        "address-inside",
        f"An address is in {GATEWAY4.network} or {GATEWAY6.network}, with that very prefix.",
        _ALL,
        _address_inside,
    ),
    Rule("address-host", "An address is that of one host.", _ALL, _address_host),
    Rule("address-free", "The host's own address is not given away.", _ALL, _address_free),
    Rule("ports-kind", "Only a network of type simple forwards ports.", _ALL, _ports_kind),
    Rule("port", f"A port is between 1 and {MAX_PORT}.", _ALL, _port),
)  # fmt: skip
ADDRESS_ONCE: Rule[Declaration] = Rule(
    "address-once", "No two targets have the same address.", _ALL, _address_once
)
ADDRESS_ROOM: Rule[Declaration] = Rule(
    "address-room", "There are addresses for all targets that ask for none.", _ALL, _address_room
)
PORT_ONCE: Rule[Declaration] = Rule(
    "port-once", "A port of the host leads to one target.", _ALL, _port_once
)
RULES = (*ALONE, ADDRESS_ONCE, ADDRESS_ROOM, PORT_ONCE)
