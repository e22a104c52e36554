"""Services and forwarded ports of every kind, for golden files and tests of single lines."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from machineos.core.idrange import IdRange
from machineos.core.serviceid import ServiceId
from machineos.document.model.image import User
from machineos.service.plan.model import ServiceSpec, Volume
from machineos.service.plan.network import Attachment, Forward, Link

if TYPE_CHECKING:
    from collections.abc import Sequence

LXC = Path("/run/machineos/lxc")
SIMPLE = Attachment(
    "simple", IPv4Interface("10.0.3.99/24"), IPv6Interface("fd6d:6f73:3000:3::63/64")
)
PLAIN = ServiceSpec(
    id=ServiceId("web"),
    version="1.0.0",
    rootfs=Path("/run/machineos/roots/web"),
    argv=("/bin/web", "--flag"),
    env=(("A", "1"),),
    user=User(0, 0, "/root"),
    folder="/",
    stop_signal="SIGTERM",
    ids=IdRange(165536, 65536),
    network=Attachment("none"),
    scratch=("/tmp", "/run"),
)
SPECS = {
    "none": PLAIN,
    "simple": replace(
        PLAIN,
        network=SIMPLE,
        resolv_conf=Path("/run/systemd/resolve/resolv.conf"),
        scratch=("/tmp", "/run", "/var/tmp"),
    ),
    "host": replace(PLAIN, network=Attachment("host"), apparmor="lxc-container-default-cgns"),
    "host-ids": replace(PLAIN, network=Attachment("host"), ids=None, scratch=()),
    "volumes": replace(
        PLAIN,
        volumes=(
            Volume(Path("/run/data/logs/volume"), "/var/log"),
            Volume(Path("/run/data/a b/volume"), "/tmp"),
            Volume(Path("/run/data/c/volume"), "/run/c"),
        ),
    ),
    "odd": replace(
        PLAIN,
        id=ServiceId("my_web.1"),
        version="1%n",
        rootfs=Path("/run/machineos/roots/my_web.1"),
        argv=("/bin/x", "", "a b", "q\"u'o\\te", "$HOME %n ;", "new\nline", "tab\there", "é"),
        env=(
            ("PATH", "/own"),
            ("E", "= \"x' "),
            ("N", "1\n2"),
            ("Q", '"'),
            ("S", " 'y' \\"),
            ("U", "é"),
            ("EMPTY", ""),
        ),
        user=User(1000, 33, "/srv/a b"),
        folder="/srv/a b",
        stop_signal="SIGQUIT",
    ),
}


def forward(protocol: str, host: int, port: int, number: int, name: str = "web") -> Forward:
    """Return a forwarded port of a service whose addresses end in ``number``."""
    ipv4, ipv6 = IPv4Address(f"10.0.3.{number}"), IPv6Address(f"fd6d:6f73:3000:3::{number:x}")
    return Forward(ServiceId(name), protocol, host, port, ipv4, ipv6)


PORTS = {
    "empty": (),
    "two": (forward("tcp", 80, 5000, 99), forward("udp", 53, 5353, 7, "my_dns.1")),
}


def links(forwards: Sequence[Forward]) -> tuple[Link, ...]:
    """Return the links of the services that these lead to."""
    return tuple(
        Link(
            one.service.link(one.ipv4),
            f"00:16:3e:00:03:{one.ipv4.packed[3]:02x}",
            one.ipv4,
            one.ipv6,
        )
        for one in forwards
    )
