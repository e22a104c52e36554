"""Addresses and port forwarding: who gets which address, and the nftables table that follows.

Pure. The bridge ``mos0`` carries 10.0.3.1/24, the predecessor's subnet, and a unique local IPv6
prefix. All of it is in one table, ``inet machineos``, that is replaced as a whole, so applying it
twice, or after a crash, gives the same result. The predecessor's defects that tests keep away: TCP
only, unreachable from the host itself, port clashes unseen, no address left to choose.

A forwarded port is reachable from outside, from the host by any of its addresses, from the host by
127.0.0.1, and from other services. Not by ::1: the kernel has no route_localnet for IPv6.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import TYPE_CHECKING

from machineos.errors import ConflictError, DocumentError, Fault, SpaceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from machineos.document.product.install import Network
    from machineos.service.plan.model import NetworkKind

BRIDGE = "mos0"
FAMILY = "inet"
TABLE = "machineos"
GATEWAY4 = IPv4Interface("10.0.3.1/24")
# From the unique local range (RFC 4193); it never leaves the machine, being masqueraded.
GATEWAY6 = IPv6Interface("fd6d:6f73:3000:3::1/64")
BRIDGE_ADDRESSES = (str(GATEWAY4), str(GATEWAY6))
# Where automatic addresses start, as the predecessor had it.
_FIRST_FREE = 3


@dataclass(frozen=True, slots=True)
class Attachment:
    """The network of one service; addresses are there for the kind ``simple`` only."""

    kind: NetworkKind
    ipv4: IPv4Interface | None = None
    ipv6: IPv6Interface | None = None

    @property
    def hardware(self) -> str:
        """A MAC address that follows from the IPv4 address, so that it is stable and unique."""
        octets = (0x00, 0x16, 0x3E, *self._packed[1:])
        return ":".join(f"{octet:02x}" for octet in octets)

    @property
    def pair(self) -> str:
        """The name of the host's end of the link."""
        return f"mv{self._packed.hex()}"

    @property
    def _packed(self) -> bytes:
        return self.ipv4.ip.packed if self.ipv4 is not None else bytes(4)


@dataclass(frozen=True, slots=True)
class Forward:
    """``protocol`` port ``host`` of the machine leads to port ``port`` of ``service``."""

    service: str
    protocol: str
    host: int
    port: int
    ipv4: IPv4Address
    ipv6: IPv6Address


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """What each service gets; ``refused`` says why a service gets nothing and cannot run."""

    attachments: dict[str, Attachment]
    forwards: tuple[Forward, ...]
    refused: dict[str, ConflictError | DocumentError | SpaceError]


def plan_network(services: Sequence[tuple[str, Network]]) -> NetworkPlan:
    """Give every service its network; the same input always gives the same addresses.

    A service that contradicts an earlier one, or asks for the impossible, is refused alone.
    """
    planner = _Planner()
    # Addresses that were asked for come first, so that no automatic one takes them.
    ordered = sorted(services, key=lambda item: not (item[1].ipv4 or item[1].ipv6))
    for name, network in ordered:
        try:
            planner.add(name, network)
        except (ConflictError, DocumentError, SpaceError) as error:
            planner.refused[name] = error
    forwards = sorted(planner.forwards.values(), key=lambda item: (item.protocol, item.host))
    return NetworkPlan(planner.attachments, tuple(forwards), planner.refused)


def render_table(forwards: Iterable[Forward]) -> str:
    """Return the body of the nftables table: what to forward, hide, and let through."""
    rules = "".join(f"    {rule}\n" for forward in forwards for rule in _dnat(forward))
    return _TABLE.format(
        rules=rules,
        bridge=BRIDGE,
        net4=GATEWAY4.network,
        net6=GATEWAY6.network,
    )


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


class _Planner:
    """What is taken so far."""

    def __init__(self) -> None:
        self.attachments: dict[str, Attachment] = {}
        self.forwards: dict[tuple[str, int], Forward] = {}
        self.refused: dict[str, ConflictError | DocumentError | SpaceError] = {}
        self._taken: dict[IPv4Address | IPv6Address, str] = {
            GATEWAY4.ip: "the host",
            GATEWAY6.ip: "the host",
        }

    def add(self, name: str, network: Network) -> None:
        if network.type != "simple":
            if network.ports:
                raise _fault(name, "ports", f"a network of type {network.type} forwards no ports")
            self.attachments[name] = Attachment(network.type)
            return
        ports = network.ports or ()
        wanted = [(port.protocol, port.host) for port in ports]
        for index, key in enumerate(wanted):
            other = self.forwards.get(key)
            if other is not None or key in wanted[:index]:
                owner = other.service if other is not None else name
                raise ConflictError(
                    f"service {name}: {key[0]} port {key[1]} of the host is taken by {owner}",
                    hint="give one of them another host port in the manifest",
                )
        ipv4 = self._address4(name, network.ipv4)
        ipv6 = self._address6(name, network.ipv6, ipv4)
        self._taken[ipv4.ip] = name
        self._taken[ipv6.ip] = name
        self.attachments[name] = Attachment("simple", ipv4, ipv6)
        for port in ports:
            self.forwards[port.protocol, port.host] = Forward(
                name, port.protocol, port.host, port.container, ipv4.ip, ipv6.ip
            )

    def _address4(self, name: str, text: str) -> IPv4Interface:
        network = GATEWAY4.network
        if not text:
            for host in range(_FIRST_FREE, network.num_addresses - 1):
                address = network.network_address + host
                if address not in self._taken:
                    return ipaddress.IPv4Interface((address, network.prefixlen))
            raise SpaceError(f"service {name}: no address is free in {network}")
        try:
            interface = IPv4Interface(text)
        except ValueError as error:
            raise _fault(name, "ipv4", f"{text[:60]!r} is not an IPv4 address") from error
        if interface.ip in (network.network_address, network.broadcast_address):
            raise _fault(name, "ipv4", f"{interface.ip} is not the address of one host")
        self._check(name, "ipv4", interface, interface.network == network)
        return interface

    def _address6(self, name: str, text: str, ipv4: IPv4Interface) -> IPv6Interface:
        network = GATEWAY6.network
        if not text:
            # The same host number as in IPv4; only an explicit address can be in the way.
            number = int(ipv4.ip) - int(GATEWAY4.network.network_address)
            while network.network_address + number in self._taken:
                number += GATEWAY4.network.num_addresses
            return ipaddress.IPv6Interface((network.network_address + number, network.prefixlen))
        try:
            interface = IPv6Interface(text)
        except ValueError as error:
            raise _fault(name, "ipv6", f"{text[:60]!r} is not an IPv6 address") from error
        self._check(name, "ipv6", interface, interface.network == network)
        return interface

    def _check(
        self, name: str, key: str, interface: IPv4Interface | IPv6Interface, inside: bool
    ) -> None:
        network = GATEWAY4.network if interface.version == 4 else GATEWAY6.network
        if not inside:
            raise _fault(name, key, f"{interface} is not in {network}, the network of {BRIDGE}")
        owner = self._taken.get(interface.ip)
        if owner is not None:
            raise ConflictError(
                f"service {name}: address {interface.ip} is taken by {owner}",
                hint="give it another address, or none to have one chosen",
            )


def _fault(name: str, key: str, message: str) -> DocumentError:
    return DocumentError(f"service {name}", [Fault(f"network.{key}", 0, message)])
