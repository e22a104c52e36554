"""Which service has which address on the bridge: leases, and who gets what is free. Pure.

Owns the rule (ADR 0020) and the document ``/run/machineos/leases.json``. Invariants:

- A service keeps its address as long as it is there, whoever comes and goes beside it.
- A number that somebody had is given to another only when no other is free, the oldest first.
- Where nothing is known (each boot begins so), a service's first choice follows from its id alone,
  so most addresses are the same after every boot, and the order of the services means nothing.
"""

from __future__ import annotations

import hashlib
import ipaddress
from typing import TYPE_CHECKING, Literal

import msgspec

from machineos.core.jsondoc import decode_json
from machineos.core.serviceid import ServiceId, ServiceName
from machineos.document.rules.product import KNOWN_VERSION
from machineos.errors import DocumentError, Fault

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

VERSION = 1
MAX_SIZE = 1 << 20
_NEXT = 256  # between the host numbers that are tried in IPv6


class Lease(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The addresses that were chosen for a service; empty where none was."""

    service: str
    ipv4: str = ""
    ipv6: str = ""


class Leases(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All leases, the oldest first, also those kept for services that are not there now."""

    version: int
    leases: tuple[Lease, ...] = ()

    def to_bytes(self) -> bytes:
        """Return the file's content, always the same for the same value."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"


NO_LEASES = Leases(VERSION)


def parse_leases(data: bytes, *, name: str = "leases") -> Leases:
    """Return stored leases. Raises: DocumentError with every fault."""
    stored = decode_json(data, Leases, name=name, limit=MAX_SIZE)
    faults = KNOWN_VERSION.faults(stored.version)
    seen: set[tuple[str, str]] = set()
    for index, lease in enumerate(stored.leases):
        path = f"leases[{index}]"
        problem = ServiceName.problem(lease.service)
        if problem:
            faults.append(Fault(f"{path}.service", 0, problem))
        faults += _address_faults(lease, path)
        for key, value in msgspec.structs.asdict(lease).items():
            if value and (key, value) in seen:
                faults.append(Fault(f"{path}.{key}", 0, f"{value[:80]!r} is leased twice"))
            seen.add((key, value))
    if faults:
        raise DocumentError(name, faults)
    return stored


class Space(msgspec.Struct, frozen=True):
    """Where addresses are chosen: host numbers ``numbers`` of ``ipv4``, and any of ``ipv6``.

    ``taken`` are addresses that nobody may be given: the host's, and those that services name.
    """

    ipv4: IPv4Network
    ipv6: IPv6Network
    numbers: range
    taken: frozenset[IPv4Address | IPv6Address] = frozenset()


def assign_addresses(
    existing: Leases, *, ipv4: Collection[ServiceId], ipv6: Collection[ServiceId], space: Space
) -> Leases:
    """Return the leases when ``ipv4`` and ``ipv6`` are the services that want such an address.

    Who wants one and has none in the result gets none: IPv4 addresses can run out. An IPv6 address
    has the host number of the IPv4 address, plus a multiple of 256 where that one is taken.
    """
    four = assign_numbers(
        _numbers(existing, "ipv4", space.ipv4),
        ipv4,
        space=space.numbers,
        taken=_taken(space, space.ipv4),
    )
    six = _kept_six(existing, space, keep={*four, *ipv6})
    for service in sorted(set(ipv6) - set(six), key=_rank):
        number = four.get(service, _choices(service, space.numbers)[0])
        used = {*six.values(), *_taken(space, space.ipv6)}
        while number in used:
            number += _NEXT
        six[service] = number
    found = tuple(
        Lease(service.text, _text(space.ipv4, four, service), _text(space.ipv6, six, service))
        for service in {**four, **six}
    )
    return Leases(VERSION, found)


def assign_numbers(
    existing: Mapping[ServiceId, int],
    wanted: Collection[ServiceId],
    *,
    space: range,
    taken: Collection[int] = (),
) -> dict[ServiceId, int]:
    """Return a number of ``space`` for each of ``wanted``, and those kept for who is not wanted.

    ``existing`` is what they had, the oldest first, as the result is again; ``taken`` are numbers
    that nobody here may have. Who is wanted and not in the result got none: the space is full.
    """
    kept = {
        service: number
        for service, number in existing.items()
        if number in space and number not in taken
    }
    for service in sorted(set(wanted) - set(kept), key=_rank):
        used = {*taken, *kept.values()}
        number = next((each for each in _choices(service, space) if each not in used), None)
        if number is None:
            away = next((other for other in kept if other not in wanted), None)
            if away is None:
                break
            number = kept.pop(away)
        kept[service] = number
    return kept


def _numbers(
    leases: Leases, key: Literal["ipv4", "ipv6"], network: IPv4Network | IPv6Network
) -> dict[ServiceId, int]:
    """Return the host numbers of the leases, without those of another network."""
    found = {}
    for lease in leases.leases:
        text = getattr(lease, key)
        address = ipaddress.ip_address(text) if text else None
        if address is not None and address in network:
            found[ServiceId(lease.service)] = int(address) - int(network.network_address)
    return found


def _taken(space: Space, network: IPv4Network | IPv6Network) -> frozenset[int]:
    start = int(network.network_address)
    return frozenset(int(each) - start for each in space.taken if each in network)


def _kept_six(
    existing: Leases, space: Space, *, keep: Collection[ServiceId]
) -> dict[ServiceId, int]:
    taken = _taken(space, space.ipv6)
    return {
        service: number
        for service, number in _numbers(existing, "ipv6", space.ipv6).items()
        if number not in taken and service in keep
    }


def _text(
    network: IPv4Network | IPv6Network, numbers: Mapping[ServiceId, int], service: ServiceId
) -> str:
    return str(network.network_address + numbers[service]) if service in numbers else ""


def _rank(service: ServiceId) -> bytes:
    return hashlib.sha256(service.text.encode()).digest()


def _choices(service: ServiceId, space: range) -> tuple[int, ...]:
    """Return all numbers of ``space`` in the order in which this service would have them."""
    first = int.from_bytes(_rank(service)[:8], "big") % len(space)
    return (*space[first:], *space[:first])


def _address_faults(lease: Lease, path: str) -> list[Fault]:
    faults = []
    for key, text, kind in (
        ("ipv4", lease.ipv4, ipaddress.IPv4Address),
        ("ipv6", lease.ipv6, ipaddress.IPv6Address),
    ):
        try:
            good = not text or str(kind(text)) == text
        except ValueError:
            good = False
        if not good:
            faults.append(Fault(f"{path}.{key}", 0, f"{text[:80]!r} is no {kind.__name__}"))
    return faults
