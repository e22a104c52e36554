"""Addresses and port forwarding: who gets which address, and which port leads to whom.

Pure. What a network may be, and of which networks the bridge is, are rules
(``document.rules.network``); what nftables is told of all that is in ``ruleset``. The predecessor's
defects that tests keep away: TCP only, unreachable from the host itself, port clashes unseen, no
address left to choose.

A forwarded port is reachable from outside, from the host by any of its addresses, from the host by
127.0.0.1, and from other services. Not by ::1: the kernel has no route_localnet for IPv6.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from machineos.core.serviceid import ServiceId
from machineos.document.rules.network import GATEWAY4, GATEWAY6, NUMBERS, refusals
from machineos.document.rules.subject import DeclaredTarget
from machineos.document.state.leases import NO_LEASES, Lease, Leases, Space, assign_addresses

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from machineos.document.model.install import Network, NetworkType

BRIDGE_ADDRESSES = (str(GATEWAY4), str(GATEWAY6))
# Where addresses are chosen from; the rule that there are enough counts the same numbers.
SPACE = Space(
    ipv4=GATEWAY4.network,
    ipv6=GATEWAY6.network,
    numbers=NUMBERS,
    taken=frozenset({GATEWAY4.ip, GATEWAY6.ip}),
)


class Attachment(msgspec.Struct, frozen=True):
    """The network of one service; addresses are there for the kind ``simple`` only."""

    kind: NetworkType
    ipv4: IPv4Interface | None = None
    ipv6: IPv6Interface | None = None

    @property
    def hardware(self) -> str:
        """A MAC address that follows from the IPv4 address, so that it is stable and unique."""
        packed = self.ipv4.ip.packed if self.ipv4 is not None else bytes(4)
        octets = (0x00, 0x16, 0x3E, *packed[1:])
        return ":".join(f"{octet:02x}" for octet in octets)


class Link(msgspec.Struct, frozen=True):
    """The link of a service: ``port`` is the host's end, at the bridge; the rest is who speaks
    there."""

    port: str
    hardware: str
    ipv4: IPv4Address
    ipv6: IPv6Address

    @property
    def local(self) -> IPv6Address:
        """The link-local address that a kernel makes of the hardware address (RFC 4291, A)."""
        octets = [int(octet, 16) for octet in self.hardware.split(":")]
        octets[0] ^= 0x02
        return IPv6Address(b"\xfe\x80" + bytes([0] * 6 + octets[:3] + [0xFF, 0xFE] + octets[3:]))


class Forward(msgspec.Struct, frozen=True):
    """``protocol`` port ``host`` of the machine leads to port ``port`` of ``service``."""

    service: ServiceId
    protocol: str
    host: int
    port: int
    ipv4: IPv4Address
    ipv6: IPv6Address


class Wanted(msgspec.Struct, frozen=True):
    """A service that is to run, and what it asks for."""

    service: ServiceId
    network: Network
    nsgroup: str = ""


class Refusal(msgspec.Struct, frozen=True):
    """Why a service gets no network and cannot run; ``rule`` is the name of the rule that says so
    (``document.rules``)."""

    service: ServiceId
    rule: str
    why: str


class NetworkPlan(msgspec.Struct, frozen=True):
    """What each service gets; ``leases`` are to be kept for the next plan."""

    attachments: tuple[tuple[ServiceId, Attachment], ...]
    forwards: tuple[Forward, ...]
    refused: tuple[Refusal, ...]
    leases: Leases

    def attachment(self, service: ServiceId) -> Attachment | None:
        """Return the network of a service, None when it is refused or not in the plan."""
        return dict(self.attachments).get(service)

    def links(self, services: Collection[ServiceId]) -> tuple[Link, ...]:
        """Return the links of those among ``services`` that have one."""
        return tuple(
            Link(service.link(one.ipv4.ip), one.hardware, one.ipv4.ip, one.ipv6.ip)
            for service, one in self.attachments
            if service in services and one.ipv4 is not None and one.ipv6 is not None
        )

    def why(self, service: ServiceId) -> str:
        """Return why a service is refused, empty when it is not."""
        return next((each.why for each in self.refused if each.service == service), "")


def plan_network(services: Sequence[Wanted], leases: Leases = NO_LEASES) -> NetworkPlan:
    """Give every service its network. ``leases`` are those of the plan before.

    A service that contradicts an earlier one, or asks for the impossible, is refused alone.
    """
    # Who names an address is looked at first.
    ordered = sorted(services, key=lambda one: not (one.network.ipv4 or one.network.ipv6))
    settled = {lease.service for lease in leases.leases if lease.ipv4}
    asked = [
        DeclaredTarget(one.service.text, "", "container", one.network, one.nsgroup)
        for one in ordered
    ]
    faults = refusals(asked, settled)
    fit = [(one.service, one.network) for one in ordered if one.service.text not in faults]
    simple = [(service, network) for service, network in fit if network.type == "simple"]
    chosen = _choose(simple, leases)
    addresses = _addresses(simple, chosen)
    return NetworkPlan(
        attachments=tuple(
            (service, Attachment(network.type, *addresses.get(service, ())))
            for service, network in fit
        ),
        forwards=_forwards(simple, addresses),
        refused=tuple(
            Refusal(ServiceId(name), fault.rule, f"service {name}: {fault}")
            for name, fault in faults.items()
        ),
        leases=chosen,
    )


def _choose(services: Sequence[tuple[ServiceId, Network]], leases: Leases) -> Leases:
    """Return the leases when these services, which fit together, have what they do not name."""
    four = {IPv4Interface(network.ipv4).ip for _, network in services if network.ipv4}
    six = {IPv6Interface(network.ipv6).ip for _, network in services if network.ipv6}
    return assign_addresses(
        leases,
        ipv4={service for service, network in services if not network.ipv4},
        ipv6={service for service, network in services if not network.ipv6},
        space=replace(SPACE, taken=SPACE.taken | four | six),
    )


def _addresses(
    services: Sequence[tuple[ServiceId, Network]], leases: Leases
) -> dict[ServiceId, tuple[IPv4Interface, IPv6Interface]]:
    """Return the addresses of services: what each names, and its lease where it names nothing."""
    own = {lease.service: lease for lease in leases.leases}
    found = {}
    for service, network in services:
        lease = own.get(service.text, Lease(service.text))
        found[service] = (
            IPv4Interface(network.ipv4 or f"{lease.ipv4}/{SPACE.ipv4.prefixlen}"),
            IPv6Interface(network.ipv6 or f"{lease.ipv6}/{SPACE.ipv6.prefixlen}"),
        )
    return found


def _forwards(
    services: Sequence[tuple[ServiceId, Network]],
    addresses: Mapping[ServiceId, tuple[IPv4Interface, IPv6Interface]],
) -> tuple[Forward, ...]:
    """Return where the ports of services lead to, by protocol and number."""
    found = []
    for service, network in services:
        ipv4, ipv6 = addresses[service]
        found += [
            Forward(service, port.protocol, port.host, port.container, ipv4.ip, ipv6.ip)
            for port in network.ports or ()
        ]
    return tuple(sorted(found, key=lambda item: (item.protocol, item.host)))
