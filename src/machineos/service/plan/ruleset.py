"""What nftables is told: who may speak at which port of the bridge, what is routed, what is heard.

Pure. There are two tables, ``bridge machineos`` and ``inet machineos``. Both are replaced whole and
in one transaction, so applying them twice, or after a crash, gives the same result, and at no time
is there one without the other. Both say what may pass, and nothing else does: a service whose port
is not in the table, because it is new or was refused, neither sends nor gets a frame.

The invariants that tests keep:

- at its port a service speaks with its own MAC, IPv4 and IPv6 address, in ARP and neighbour
  discovery too, in frames that are nothing but ARP, TCP, UDP or ICMP without options, extension
  headers and fragments;
- no frame goes from port to port, so services meet only where the host routes;
- the host routes from the bridge to outside, from wherever to a forwarded port, and nothing else;
- services reach nothing of the host itself: it answers their neighbour discovery and what it asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.core.idrange import FIRST_GUEST
from machineos.core.serviceid import LINK_PREFIX
from machineos.document.rules.network import BRIDGE, GATEWAY4, GATEWAY6
from machineos.host.unit import nft

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from machineos.service.plan.network import Forward, Link

TABLE = "machineos"
# Where clouds tell a machine its secrets: link-local, Alibaba's; those of EC2 and Google in IPv6.
# Azure's own address is its resolver too, so of that one everything but names is closed.
METADATA4 = "169.254.0.0/16, 100.100.100.200"
METADATA6 = "fd00:ec2::254, fd20:ce::254"
WIRE_SERVER = "168.63.129.16"
# Group addresses that a bridge handles apart from all others (IEEE 802.1D, 7.12.6).
_RESERVED = "ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00"


def render(forwards: Iterable[Forward], links: Sequence[Link]) -> str:
    """Return the script for nft that puts both tables in place."""
    return nft.replace_table("bridge", TABLE, _ports(links)) + nft.replace_table(
        "inet", TABLE, _routes(forwards)
    )


# The chain of a port accepts, and the policy drops what it says nothing of. Every rule before the
# jump is about all ports and only drops; a chain of a port may take for granted what they leave.
#
# A frame to a reserved group address comes this way because the bridge is made so, but for one
# (01:80:c2:00:00:02): that comes to ``to_host`` alone, as if the port itself had received it.
_PORTS = """\
{chains}  chain from_ports {{
    type filter hook prerouting priority dstnat; policy drop;
    ether type != {{ arp, ip, ip6 }} drop
    arp htype != 1 drop
    arp ptype != ip drop
    arp hlen != 6 drop
    arp plen != 4 drop
    arp operation != {{ request, reply }} drop
    ip hdrlength != 5 drop
    ip frag-off & 0x3fff != 0 drop
    ip protocol != {{ icmp, tcp, udp }} drop
    icmp type != {{ {errors4}, echo-request, echo-reply }} drop
    ip6 nexthdr != {{ tcp, udp, icmpv6 }} drop
    icmpv6 type != {{ {errors6}, echo-request, echo-reply, {discovery} }} drop
    udp dport {{ 68, 546 }} drop
    ip daddr {{ 127.0.0.0/8, {metadata4} }} drop
    ip daddr {wire_server} th dport != 53 drop
    ip6 daddr {{ {metadata6} }} drop
{known}  }}
  chain between_ports {{
    type filter hook forward priority filter; policy drop;
  }}
  chain to_host {{
    type filter hook input priority filter; policy accept;
    {reserved} drop
  }}
  chain to_ports {{
    type filter hook postrouting priority srcnat; policy drop;
{heard}  }}
"""
_ERRORS4 = "destination-unreachable, time-exceeded, parameter-problem"
_ERRORS6 = "destination-unreachable, packet-too-big, time-exceeded, parameter-problem"
_DISCOVERY = "nd-neighbor-solicit, nd-neighbor-advert"


def _ports(links: Sequence[Link]) -> str:
    known = ", ".join(f'"{link.port}" : goto from_{link.port}' for link in links)
    names = ", ".join(f'"{link.port}"' for link in links)
    pairs = ", ".join(f'"{link.port}" . {link.hardware}' for link in links)
    heard = f"""\
    oifname . ether daddr {{ {pairs} }} accept
    oifname {{ {names} }} ether daddr & 01:00:00:00:00:00 != 00:00:00:00:00:00 accept
"""
    return _PORTS.format(
        chains="".join(map(_port, links)),
        known=f"    iifname vmap {{ {known} }}\n" if links else "",
        heard=heard if links else "",
        reserved=_RESERVED,
        errors4=_ERRORS4,
        errors6=_ERRORS6,
        discovery=_DISCOVERY,
        metadata4=METADATA4,
        metadata6=METADATA6,
        wire_server=WIRE_SERVER,
    )


# Neighbour discovery is written as bytes of the ICMPv6 message, for which nft 1.0.6 has no names
# (Debian 12, where tests run; the appliance has 1.1.3): at 64 the target, at 192 the one option,
# which is type, length in units of 8, MAC. Without it one could lead its own address, which the
# message is about, to somebody else's MAC. There are few sets here, because they are what takes
# time to load.
_PORT = """\
  chain from_{port} {{
    ether saddr != {mac} drop
    arp saddr ether {mac} arp saddr ip {ipv4} accept
    ip saddr {ipv4} accept
    ip6 saddr :: icmpv6 type nd-neighbor-solicit ip6 length <= 32 @th,64,128 {own} accept
    ip6 saddr != {{ {ipv6}, {local} }} drop
    ip6 nexthdr != icmpv6 accept
    icmpv6 type < nd-neighbor-solicit accept
    icmpv6 type nd-neighbor-solicit ip6 length 32 @th,192,64 0x0101{mac_hex} accept
    @th,64,128 != {own} drop
    icmpv6 type nd-neighbor-advert ip6 length 24 accept
    icmpv6 type nd-neighbor-advert ip6 length 32 @th,192,64 0x0201{mac_hex} accept
  }}
"""


def _port(link: Link) -> str:
    own = ", ".join(f"{int(address):#034x}" for address in (link.ipv6, link.local))
    return _PORT.format(
        port=link.port,
        mac=link.hardware,
        mac_hex=link.hardware.replace(":", ""),
        ipv4=link.ipv4,
        ipv6=link.ipv6,
        local=link.local,
        own=f"{{ {own} }}",
    )


# Loopback addresses that arrive from a container are dropped before anything else looks at them:
# route_localnet, which the host needs to reach its forwarded ports by 127.0.0.1, would otherwise
# let containers reach the host's own loopback services (CVE-2020-8558). The bridge's table says the
# same; it does not see what a port gets while it is no port of the bridge yet.
#
# ``from_host`` leaves the other loopback addresses alone: on 127.0.0.53 is the host's own resolver,
# and a service that has port 53 would become it.
#
# In ``said`` and ``into_bridge`` are those who share the host's network: services of that kind, and
# the host. What is said by nobody's id (the kernel's own packets, connections of several paths,
# which have no owner that nft could see) counts as said by a service. In IPv4 the kernel itself
# lets nobody without capabilities speak from an address that the machine has not.
_ROUTES = """\
  chain forwarded_ports {{
{rules}  }}
  chain martians {{
    type filter hook prerouting priority raw; policy accept;
    iifname "{prefix}*" drop
    iifname "{bridge}" ip daddr 127.0.0.0/8 drop
    iifname "{bridge}" ip saddr 127.0.0.0/8 drop
    iifname != {{ "lo", "{bridge}" }} ip saddr {net4} drop
    iifname != {{ "lo", "{bridge}" }} ip6 saddr {net6} drop
  }}
  chain from_outside {{
    type nat hook prerouting priority dstnat; policy accept;
    fib daddr type local jump forwarded_ports
  }}
  chain from_host {{
    type nat hook output priority -100; policy accept;
    ip6 daddr ::1 return
    ip daddr 127.0.0.0/8 ip daddr != 127.0.0.1 return
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
    type filter hook forward priority filter; policy drop;
    ct state invalid drop
    ct state established,related accept
    iifname "{bridge}" oifname != "{bridge}" ip saddr {net4} accept
    iifname "{bridge}" oifname != "{bridge}" ip6 saddr {net6} accept
    oifname "{bridge}" ct status dnat accept
  }}
  chain heard {{
    type filter hook input priority filter; policy accept;
    iifname != "{bridge}" accept
    ct state established,related accept
    icmpv6 type {{ {discovery} }} accept
    drop
  }}
  chain said {{
    type filter hook output priority filter; policy accept;
    ip6 saddr != :: fib saddr type != local drop
    meta skuid < {guests} accept
    ip daddr {{ {metadata4} }} drop
    ip daddr {wire_server} th dport != 53 drop
    ip6 daddr {{ {metadata6} }} drop
  }}
  chain into_bridge {{
    type filter hook postrouting priority filter; policy accept;
    oifname != "{bridge}" accept
    ct state established,related accept
    ct status dnat accept
    icmpv6 type {{ {discovery} }} accept
    meta skuid < {guests} accept
    drop
  }}
"""


def _routes(forwards: Iterable[Forward]) -> str:
    return _ROUTES.format(
        rules="".join(f"    {rule}\n" for forward in forwards for rule in _dnat(forward)),
        prefix=LINK_PREFIX,
        bridge=BRIDGE,
        net4=GATEWAY4.network,
        net6=GATEWAY6.network,
        guests=FIRST_GUEST,
        discovery=_DISCOVERY,
        metadata4=METADATA4,
        metadata6=METADATA6,
        wire_server=WIRE_SERVER,
    )


def _dnat(forward: Forward) -> tuple[str, str]:
    match = f"{forward.protocol} dport {forward.host} dnat"
    comment = f'comment "{forward.service}"'
    return (
        f"meta nfproto ipv4 {match} ip to {forward.ipv4}:{forward.port} {comment}",
        f"meta nfproto ipv6 {match} ip6 to [{forward.ipv6}]:{forward.port} {comment}",
    )
