"""Addresses and port forwarding: who gets which address, and the nftables table that follows.

Pure. The bridge ``mos0`` carries 10.0.3.1/24, the predecessor's subnet, and a unique local IPv6
prefix. All of it is in one table, ``inet machineos``, that is replaced as a whole, so applying it
twice, or after a crash, gives the same result. The predecessor's defects that tests keep away: TCP
only, unreachable from the host itself, port clashes unseen, no address left to choose.

A forwarded port is reachable from outside, from the host by any of its addresses, from the host by
127.0.0.1, and from other services. Not by ::1: the kernel has no route_localnet for IPv6.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from machineos.core.serviceid import ServiceId
from machineos.document.state.leases import NO_LEASES, Lease, Leases, Space, assign_addresses
from machineos.errors import ConflictError, DocumentError, Fault, MachineOSError, SpaceError
from machineos.host.unit import nft

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from machineos.document.model.install import Network, NetworkType

BRIDGE = "mos0"
FAMILY = "inet"
TABLE = "machineos"
GATEWAY4 = IPv4Interface("10.0.3.1/24")
# From the unique local range (RFC 4193); it never leaves the machine, being masqueraded.
GATEWAY6 = IPv6Interface("fd6d:6f73:3000:3::1/64")
BRIDGE_ADDRESSES = (str(GATEWAY4), str(GATEWAY6))
# Where addresses are chosen from: the predecessor's began at 3 too; the last is for broadcast.
SPACE = Space(
    ipv4=GATEWAY4.network,
    ipv6=GATEWAY6.network,
    numbers=range(3, GATEWAY4.network.num_addresses - 1),
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


class NetworkPlan(msgspec.Struct, frozen=True):
    """What each service gets; ``refused`` says why a service gets nothing and cannot run.

    ``leases`` are to be kept for the next plan.
    """

    attachments: tuple[tuple[ServiceId, Attachment], ...]
    forwards: tuple[Forward, ...]
    refused: tuple[tuple[ServiceId, str], ...]
    leases: Leases

    def attachment(self, service: ServiceId) -> Attachment | None:
        """Return the network of a service, None when it is refused or not in the plan."""
        return dict(self.attachments).get(service)

    def why(self, service: ServiceId) -> str:
        """Return why a service is refused, empty when it is not."""
        return dict(self.refused).get(service, "")


def plan_network(
    services: Sequence[tuple[ServiceId, Network]], leases: Leases = NO_LEASES
) -> NetworkPlan:
    """Give every service its network. ``leases`` are those of the plan before.

    A service that contradicts an earlier one, or asks for the impossible, is refused alone.
    """
    planner = _Planner()
    # Addresses that were asked for come first, so that no automatic one takes them.
    ordered = sorted(services, key=lambda item: not (item[1].ipv4 or item[1].ipv6))
    for service, network in ordered:
        planner.try_add(service, network)
    return planner.finish(leases)


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


class _Wish(msgspec.Struct):
    """A service that was not refused so far; an address is None where one is to be chosen."""

    network: Network
    ipv4: IPv4Interface | None = None
    ipv6: IPv6Interface | None = None


class _Planner:
    """What is taken so far."""

    def __init__(self) -> None:
        self._wishes: dict[ServiceId, _Wish] = {}
        self._refused: dict[ServiceId, str] = {}
        self._ports: dict[tuple[str, int], str] = {}
        self._taken: dict[IPv4Address | IPv6Address, str] = dict.fromkeys(SPACE.taken, "the host")

    def try_add(self, service: ServiceId, network: Network) -> None:
        """Take what the service names, or refuse it."""
        try:
            wish = self._checked(service, network)
        except MachineOSError as error:
            self._refused[service] = str(error)
            return
        self._wishes[service] = wish
        for interface in (wish.ipv4, wish.ipv6):
            if interface is not None:
                self._taken[interface.ip] = service.text
        for port in network.ports or ():
            self._ports[port.protocol, port.host] = service.text

    def finish(self, leases: Leases) -> NetworkPlan:
        """Choose what was left open."""
        simple = {name: wish for name, wish in self._wishes.items() if _is_simple(wish)}
        chosen = assign_addresses(
            leases,
            ipv4={name for name, wish in simple.items() if wish.ipv4 is None},
            ipv6={name for name, wish in simple.items() if wish.ipv6 is None},
            space=replace(SPACE, taken=frozenset(self._taken)),
        )
        for lease in chosen.leases:
            _fill(simple, lease)
        attachments, forwards = {}, []
        for service, wish in self._wishes.items():
            if not _is_simple(wish):
                attachments[service] = Attachment(wish.network.type)
            elif wish.ipv4 is None or wish.ipv6 is None:
                error = SpaceError(f"service {service}: no address is free in {SPACE.ipv4}")
                self._refused[service] = str(error)
            else:
                attachments[service] = Attachment("simple", wish.ipv4, wish.ipv6)
                forwards += _forwards(service, wish.network, wish.ipv4.ip, wish.ipv6.ip)
        return NetworkPlan(
            attachments=tuple(attachments.items()),
            forwards=tuple(sorted(forwards, key=lambda item: (item.protocol, item.host))),
            refused=tuple(self._refused.items()),
            leases=chosen,
        )

    def _checked(self, service: ServiceId, network: Network) -> _Wish:
        ports = network.ports or ()
        if network.type != "simple":
            if ports:
                message = f"a network of type {network.type} forwards no ports"
                raise _fault(service, "ports", message)
            return _Wish(network)
        wanted = [(port.protocol, port.host) for port in ports]
        for index, key in enumerate(wanted):
            owner = self._ports.get(key) or (service.text if key in wanted[:index] else "")
            if owner:
                raise ConflictError(
                    f"service {service}: {key[0]} port {key[1]} of the host is taken by {owner}",
                    hint="give one of them another host port in the manifest",
                )
        return _Wish(
            network, self._address4(service, network.ipv4), self._address6(service, network.ipv6)
        )

    def _address4(self, service: ServiceId, text: str) -> IPv4Interface | None:
        if not text:
            return None
        try:
            interface = IPv4Interface(text)
        except ValueError as error:
            raise _fault(service, "ipv4", f"{text[:60]!r} is not an IPv4 address") from error
        if interface.ip in (SPACE.ipv4.network_address, SPACE.ipv4.broadcast_address):
            raise _fault(service, "ipv4", f"{interface.ip} is not the address of one host")
        self._check(service, "ipv4", interface)
        return interface

    def _address6(self, service: ServiceId, text: str) -> IPv6Interface | None:
        if not text:
            return None
        try:
            interface = IPv6Interface(text)
        except ValueError as error:
            raise _fault(service, "ipv6", f"{text[:60]!r} is not an IPv6 address") from error
        self._check(service, "ipv6", interface)
        return interface

    def _check(
        self, service: ServiceId, key: str, interface: IPv4Interface | IPv6Interface
    ) -> None:
        network = SPACE.ipv4 if interface.version == 4 else SPACE.ipv6
        if interface.network != network:
            raise _fault(service, key, f"{interface} is not in {network}, the network of {BRIDGE}")
        owner = self._taken.get(interface.ip)
        if owner is not None:
            raise ConflictError(
                f"service {service}: address {interface.ip} is taken by {owner}",
                hint="give it another address, or none to have one chosen",
            )


def _is_simple(wish: _Wish) -> bool:
    return wish.network.type == "simple"


def _fill(wishes: Mapping[ServiceId, _Wish], lease: Lease) -> None:
    """Give a service the addresses of its lease, where it named none."""
    wish = wishes.get(ServiceId(lease.service))
    if wish is None:
        return
    if wish.ipv4 is None and lease.ipv4:
        wish.ipv4 = IPv4Interface(f"{lease.ipv4}/{SPACE.ipv4.prefixlen}")
    if wish.ipv6 is None and lease.ipv6:
        wish.ipv6 = IPv6Interface(f"{lease.ipv6}/{SPACE.ipv6.prefixlen}")


def _forwards(
    service: ServiceId, network: Network, ipv4: IPv4Address, ipv6: IPv6Address
) -> list[Forward]:
    return [
        Forward(service, port.protocol, port.host, port.container, ipv4, ipv6)
        for port in network.ports or ()
    ]


def _fault(service: ServiceId, key: str, message: str) -> DocumentError:
    return DocumentError(f"service {service}", [Fault(f"network.{key}", 0, message)])
