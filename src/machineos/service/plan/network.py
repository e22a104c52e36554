"""Addresses and port forwarding: who gets which address, and the nftables table that follows.

Pure. What a network may be, and of which networks the bridge is, are rules
(``document.rules.network``). All of it is in one table, ``inet machineos``, that is replaced as a
whole, so applying it twice, or after a crash, gives the same result. The predecessor's defects that
tests keep away: TCP only, unreachable from the host itself, port clashes unseen, no address left to
choose.

A forwarded port is reachable from outside, from the host by any of its addresses, from the host by
127.0.0.1, and from other services. Not by ::1: the kernel has no route_localnet for IPv6.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from machineos.core.serviceid import ServiceId
from machineos.document.rules.network import BRIDGE, GATEWAY4, GATEWAY6, NUMBERS, refusals
from machineos.document.state.leases import NO_LEASES, Lease, Leases, Space, assign_addresses
from machineos.host.unit import nft

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from machineos.document.model.install import Network, NetworkType

FAMILY = "inet"
TABLE = "machineos"
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


class Forward(msgspec.Struct, frozen=True):
    """``protocol`` port ``host`` of the machine leads to port ``port`` of ``service``."""

    service: ServiceId
    protocol: str
    host: int
    port: int
    ipv4: IPv4Address
    ipv6: IPv6Address


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

    def why(self, service: ServiceId) -> str:
        """Return why a service is refused, empty when it is not."""
        return next((each.why for each in self.refused if each.service == service), "")


def plan_network(
    services: Sequence[tuple[ServiceId, Network]], leases: Leases = NO_LEASES
) -> NetworkPlan:
    """Give every service its network. ``leases`` are those of the plan before.

    A service that contradicts an earlier one, or asks for the impossible, is refused alone.
    """
    # Who names an address is looked at first.
    ordered = sorted(services, key=lambda item: not (item[1].ipv4 or item[1].ipv6))
    settled = {lease.service for lease in leases.leases if lease.ipv4}
    faults = refusals([(service.text, network) for service, network in ordered], settled)
    fit = [(service, network) for service, network in ordered if service.text not in faults]
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


def render_table(forwards: Iterable[Forward]) -> str:
    """Return the script for nft that puts the table in place: what to forward, hide, and let
    through."""
    rules = "".join(f"    {rule}\n" for forward in forwards for rule in _dnat(forward))
    body = _TABLE.format(
        rules=rules,
        bridge=BRIDGE,
        net4=GATEWAY4.network,
        net6=GATEWAY6.network,
    )
    return nft.replace_table(FAMILY, TABLE, body)


# Loopback addresses that arrive from a container are dropped before anything else looks at them:
# route_localnet, which the host needs to reach its forwarded ports by 127.0.0.1, would otherwise
# let containers reach the host's own loopback services (CVE-2020-8558).
_TABLE = """\
  chain forwarded_ports {{
{rules}  }}
  chain martians {{
    type filter hook prerouting priority raw; policy accept;
    iifname "{bridge}" ip daddr 127.0.0.0/8 drop
    iifname "{bridge}" ip saddr 127.0.0.0/8 drop
  }}
  chain from_outside {{
    type nat hook prerouting priority dstnat; policy accept;
    fib daddr type local jump forwarded_ports
  }}
  chain from_host {{
    type nat hook output priority -100; policy accept;
    ip6 daddr ::1 return
    fib daddr type local jump forwarded_ports
  }}
  chain leaving {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname "{bridge}" ct status dnat ip saddr {{ 127.0.0.0/8, {net4} }} masquerade
    oifname "{bridge}" ct status dnat ip6 saddr {net6} masquerade
    oifname != "{bridge}" ip saddr {net4} masquerade
    oifname != "{bridge}" ip6 saddr {net6} masquerade
  }}
  chain through {{
    type filter hook forward priority filter; policy accept;
    ct state established,related accept
    iifname "{bridge}" accept
    oifname "{bridge}" ct status dnat accept
    oifname "{bridge}" drop
  }}
"""


def _dnat(forward: Forward) -> tuple[str, str]:
    match = f"{forward.protocol} dport {forward.host} dnat"
    comment = f'comment "{forward.service}"'
    return (
        f"meta nfproto ipv4 {match} ip to {forward.ipv4}:{forward.port} {comment}",
        f"meta nfproto ipv6 {match} ip6 to [{forward.ipv6}]:{forward.port} {comment}",
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
