"""Frames as a service could write them had it a raw socket: good ones, and each bad kind once."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import ip_address

ALL = "ff:ff:ff:ff:ff:ff"
ARP, IPV4, IPV6 = 0x0806, 0x0800, 0x86DD
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58


@dataclass(frozen=True)
class Speaker:
    """Who a frame is from, or says that it is from."""

    mac: str
    four: str
    six: str
    local: str


ME = Speaker("00:16:3e:00:03:09", "10.0.3.9", "fd6d:6f73:3000:3::9", "fe80::216:3eff:fe00:309")
OTHER = Speaker("00:16:3e:00:03:0a", "10.0.3.10", "fd6d:6f73:3000:3::a", "fe80::216:3eff:fe00:30a")
GATEWAY = Speaker("02:00:00:00:00:01", "10.0.3.1", "fd6d:6f73:3000:3::1", "fe80::1")
OUTSIDE4, OUTSIDE6 = "192.0.2.2", "2001:db8::2"


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def ether(kind: int, body: bytes, *, source: str = ME.mac, dest: str = ALL) -> bytes:
    return mac(dest) + mac(source) + struct.pack("!H", kind) + body


def arp(
    says: Speaker, *, operation: int = 1, inner: str = "", head: bytes = b"\0\1\10\0\6\4"
) -> bytes:
    """Who has the gateway, asked or said by ``says``; ``inner`` is the MAC in the message."""
    body = head + struct.pack("!H", operation) + mac(inner or says.mac)
    return body + ip_address(says.four).packed + mac(ALL) + ip_address(GATEWAY.four).packed


def four(
    protocol: int, body: bytes, *, source: str = ME.four, dest: str = OUTSIDE4,
    options: bytes = b"", fragment: int = 0,
) -> bytes:  # fmt: skip
    size = 20 + len(options)
    head = struct.pack(
        "!BBHHHBBH", 0x40 | size // 4, 0, size + len(body), 7, fragment, 64, protocol, 0
    )
    head += ip_address(source).packed + ip_address(dest).packed + options
    total = sum(struct.unpack(f"!{size // 2}H", head))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack("!H", total ^ 0xFFFF) + head[12:] + body


def six(protocol: int, body: bytes, *, source: str = ME.six, dest: str = OUTSIDE6) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(body), protocol, 255)
    return head + ip_address(source).packed + ip_address(dest).packed + body


def udp(source: int = 4000, dest: int = 6000, *, size: int = 0) -> bytes:
    """The head of a datagram of ``size`` bytes."""
    return struct.pack("!HHHH", source, dest, 8 + size, 0)


def tcp() -> bytes:
    return struct.pack("!HHIIBBHHH", 4000, 80, 1, 0, 0x50, 2, 1000, 0, 0)


def icmp(kind: int) -> bytes:
    return struct.pack("!BBHI", kind, 0, 0, 0)


def neighbour(kind: int, target: str, option: bytes = b"") -> bytes:
    return icmp(kind) + ip_address(target).packed + option


def option(kind: int, address: str) -> bytes:
    return bytes([kind, 1]) + mac(address)


def v4(protocol: int, body: bytes, **fields: str) -> bytes:
    return ether(IPV4, four(protocol, body, **fields))  # type: ignore[arg-type]


def v6(protocol: int, body: bytes, **fields: str) -> bytes:
    return ether(IPV6, six(protocol, body, **fields))


GOOD: dict[str, bytes] = {
    "arp question": ether(ARP, arp(ME)),
    "arp answer": ether(ARP, arp(ME, operation=2)),
    "udp": v4(UDP, udp()),
    "tcp": v4(TCP, tcp()),
    "ping": v4(ICMP, icmp(8)),
    "unreachable": v4(ICMP, icmp(3)),
    "names from Azure": v4(UDP, udp(4000, 53), dest="168.63.129.16"),
    "do not fragment": ether(IPV4, four(UDP, udp(), fragment=0x4000)),
    "udp6": v6(UDP, udp()),
    "tcp6": v6(TCP, tcp()),
    "ping6": v6(ICMPV6, icmp(128)),
    "too big": v6(ICMPV6, icmp(2)),
    "link-local": v6(UDP, udp(), source=ME.local),
    "solicit": v6(ICMPV6, neighbour(135, GATEWAY.six, option(1, ME.mac))),
    "advert": v6(ICMPV6, neighbour(136, ME.six, option(2, ME.mac))),
    "advert without option": v6(ICMPV6, neighbour(136, ME.six)),
    "advert of link-local": v6(ICMPV6, neighbour(136, ME.local), source=ME.local),
    "is it free": v6(ICMPV6, neighbour(135, ME.six), source="::"),
    "is it free, link-local": v6(ICMPV6, neighbour(135, ME.local, option(14, ME.mac)), source="::"),
}

_V6_FRAGMENT = struct.pack("!BBHI", UDP, 0, 0, 1)
_V6_PADDING = bytes([UDP, 0, 1, 4, 0, 0, 0, 0])
BAD: dict[str, bytes] = {
    # another's addresses
    "mac of the other": ether(IPV4, four(UDP, udp()), source=OTHER.mac),
    "mac of nobody": ether(IPV6, six(UDP, udp()), source="02:00:00:00:00:77"),
    "arp from another mac": ether(ARP, arp(ME), source=OTHER.mac),
    "source of the other": v4(UDP, udp(), source=OTHER.four),
    "source of the gateway": v4(UDP, udp(), source=GATEWAY.four),
    "source of outside": v4(TCP, tcp(), source="203.0.113.7"),
    "source zero": v4(UDP, udp(), source="0.0.0.0"),
    "source of the other, six": v6(UDP, udp(), source=OTHER.six),
    "source of the gateway, six": v6(UDP, udp(), source=GATEWAY.six),
    "source of outside, six": v6(TCP, tcp(), source="2001:db8::77"),
    "link-local of the other": v6(UDP, udp(), source=OTHER.local),
    "source zero, six": v6(UDP, udp(), source="::"),
    # ARP
    "arp as the gateway": ether(ARP, arp(GATEWAY, operation=2, inner=ME.mac)),
    "arp as the other": ether(ARP, arp(OTHER, operation=2, inner=ME.mac)),
    "arp with another mac inside": ether(ARP, arp(ME, operation=2, inner=OTHER.mac)),
    "reverse arp": ether(ARP, arp(ME, operation=3)),
    "arp of another hardware": ether(ARP, arp(ME, head=b"\0\6\10\0\6\4")),
    "arp of another protocol": ether(ARP, arp(ME, head=b"\0\1\10\1\6\4")),
    "arp of other lengths": ether(ARP, arp(ME, head=b"\0\1\10\0\6\5")),
    "arp of other lengths of hardware": ether(ARP, arp(ME, head=b"\0\1\10\0\5\4")),
    # neighbour discovery
    "advert for the gateway": v6(ICMPV6, neighbour(136, GATEWAY.six, option(2, ME.mac))),
    "advert for the other": v6(ICMPV6, neighbour(136, OTHER.six)),
    "advert with another mac": v6(ICMPV6, neighbour(136, ME.six, option(2, OTHER.mac))),
    "advert with two options": v6(
        ICMPV6, neighbour(136, ME.six, option(2, ME.mac) + option(2, OTHER.mac))
    ),
    "solicit with another mac": v6(ICMPV6, neighbour(135, GATEWAY.six, option(1, OTHER.mac))),
    "solicit with another option first": v6(
        ICMPV6, neighbour(135, GATEWAY.six, option(14, ME.mac) + option(1, OTHER.mac))
    ),
    "is the gateway free": v6(ICMPV6, neighbour(135, GATEWAY.six), source="::"),
    "advert from nobody": v6(ICMPV6, neighbour(136, ME.six), source="::"),
    "router advert": v6(ICMPV6, icmp(134) + bytes(8), source=ME.local),
    "router solicit": v6(ICMPV6, icmp(133), source=ME.local),
    "redirect": v6(ICMPV6, icmp(137) + bytes(32), source=ME.local),
    "renumbering": v6(ICMPV6, icmp(138)),
    "node information": v6(ICMPV6, icmp(139)),
    "node information, answer": v6(ICMPV6, icmp(140)),
    "listener report": v6(ICMPV6, icmp(131) + bytes(16), source=ME.local),
    "listener report, two": v6(0, bytes([58, 0, 5, 2, 0, 0, 1, 0]) + icmp(143), source=ME.local),
    "listener query": v6(ICMPV6, icmp(130) + bytes(16), source=ME.local),
    # who gives out addresses and ways
    "dhcp answer": v4(UDP, udp(67, 68)),
    "dhcp answer, six": v6(UDP, udp(547, 546)),
    "icmp redirect": v4(ICMP, icmp(5)),
    "icmp router advert": v4(ICMP, icmp(9)),
    "icmp timestamp": v4(ICMP, icmp(13)),
    "icmp address mask": v4(ICMP, icmp(17)),
    # what a filter cannot see through
    "first fragment": ether(IPV4, four(UDP, udp(), fragment=0x2000)),
    "last fragment": ether(IPV4, four(UDP, udp(), fragment=1)),
    "fragment, six": v6(44, _V6_FRAGMENT + udp()),
    "option": ether(IPV4, four(UDP, udp(), options=bytes([7, 3, 4, 0]))),
    "source route": ether(IPV4, four(UDP, udp(), options=bytes([131, 3, 4, 0]))),
    "hop by hop": v6(0, _V6_PADDING + udp()),
    "ping behind hop by hop": v6(0, bytes([ICMPV6]) + _V6_PADDING[1:] + icmp(128)),
    "destination options": v6(60, _V6_PADDING + udp()),
    "routing header": v6(43, bytes([UDP, 0, 0, 0, 0, 0, 0, 0]) + udp()),
    "igmp": v4(2, bytes(8)),
    "ip in ip": v4(4, four(UDP, udp())),
    "six in four": v4(41, six(UDP, udp())),
    "gre": v4(47, bytes(8)),
    "sctp": v4(132, bytes(12)),
    "gre, six": v6(47, bytes(8)),
    "six in six": v6(41, six(UDP, udp())),
    "no next header": v6(59, b""),
    # other ether types
    "vlan": ether(0x8100, b"\0\7" + struct.pack("!H", IPV4) + four(UDP, udp())),
    "vlan zero": ether(0x8100, b"\0\0" + struct.pack("!H", IPV4) + four(UDP, udp())),
    "vlan with arp": ether(0x8100, b"\0\7" + struct.pack("!H", ARP) + arp(ME)),
    "vlan of a provider": ether(0x88A8, b"\0\7" + struct.pack("!H", IPV4) + four(UDP, udp())),
    "two vlans": ether(0x8100, b"\0\7\x81\0\0\7" + struct.pack("!H", IPV4) + four(UDP, udp())),
    "mpls": ether(0x8847, b"\0\0\1\x40" + four(UDP, udp())),
    "pppoe": ether(0x8864, b"\x11\0\0\0\0\0\0\x21" + four(UDP, udp())),
    "lldp": ether(0x88CC, bytes(50)),
    "eapol": ether(0x888E, bytes(50)),
    "rarp": ether(0x8035, arp(ME, operation=3)),
    "802.3": ether(50, b"\xaa\xaa\3\0\0\0" + struct.pack("!H", IPV4) + four(UDP, udp())),
    "to bridges alone": ether(IPV4, four(UDP, udp()), dest="01:80:c2:00:00:00"),
    "spanning tree": ether(38, b"\x42\x42\3" + bytes(35), dest="01:80:c2:00:00:00"),
    # where a cloud keeps its secrets, and the host's own
    "metadata": v4(TCP, tcp(), dest="169.254.169.254"),
    "metadata at EC2's other address": v4(TCP, tcp(), dest="169.254.170.2"),
    "metadata at Alibaba": v4(TCP, tcp(), dest="100.100.100.200"),
    "metadata at Azure": v4(TCP, tcp(), dest="168.63.129.16"),
    "metadata at EC2, six": v6(TCP, tcp(), dest="fd00:ec2::254"),
    "metadata at Google, six": v6(TCP, tcp(), dest="fd20:ce::254"),
    "loopback": v4(UDP, udp(), dest="127.0.0.1"),
}  # fmt: skip
# A bridge gives what comes to these to its host, as received at the port.
RESERVED = {f"reserved group {last}": f"01:80:c2:00:00:{last:02x}" for last in (0, 2, 3, 0xE, 0xF)}
