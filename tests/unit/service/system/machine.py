"""A small machine in network namespaces: outside -- host -- container."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.core import run
from machineos.core.command import Result
from machineos.core.serviceid import ServiceId
from machineos.document.state.leases import NO_LEASES
from machineos.errors import ToolError
from machineos.service.plan.network import Attachment, Forward, Link, NetworkPlan
from waiting import PATIENCE, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SOURCE = Path(__file__).resolve().parents[4] / "src"
# The steps of the phases that let services speak and forward ports, taken on the machine's host.
FORWARD = """
import sys
from ipaddress import ip_address as a
from pathlib import Path
from machineos.core.serviceid import ServiceId
from machineos.service.act.linux import LinuxHost
from machineos.service.plan.network import Forward, Link
from machineos.service.plan import machine
forwards, links = [], []
for text in sys.argv[1:]:
    kind, *words = text.split(',')
    if kind == 'link':
        port, hardware, v4, v6 = words
        links.append(Link(port, hardware, a(v4), a(v6)))
    else:
        host, port, v4, v6 = words
        forwards.append(Forward(ServiceId('web'), kind, int(host), int(port), a(v4), a(v6)))
host = LinuxHost(Path('/'), layers=None, volumes=None, units=None, log=print)
routes = bool(links)
for step in machine.walls(forwards, links): step.on(host)
for step in machine.for_new_links(routes=routes): step.on(host)
for step in machine.forwarding(host.links(), routes=routes): step.on(host)
"""


WEB = ServiceId("web")


def plan_of(one: Attachment) -> NetworkPlan:
    """Return the plan of a machine with one service."""
    return NetworkPlan(((WEB, one),), (), (), NO_LEASES)


def ip(*words: str) -> None:
    run.run(["ip", *words], timeout=PATIENCE)


def forward(protocol: str, host: int, port: int, number: int) -> Forward:
    """Return a forwarded port of the service ``web``, whose addresses end in ``number``."""
    ipv4, ipv6 = IPv4Address(f"10.0.3.{number}"), IPv6Address(f"fd6d:6f73:3000:3::{number}")
    return Forward(WEB, protocol, host, port, ipv4, ipv6)


@dataclass
class Machine:
    """``outside`` is a peer on the uplink 192.0.2.0/24, ``host`` has the bridge mos0."""

    outside: str
    host: str
    extra: list[str] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def inside(self, space: str, *argv: str) -> list[str]:
        return ["ip", "netns", "exec", space, *argv]

    def run(self, space: str, *argv: str, check: bool = True) -> Result:
        return run.run(self.inside(space, *argv), timeout=PATIENCE, check=check)

    def python(self, space: str, code: str, *args: str, check: bool = True) -> Result:
        return run.run(
            self.inside(space, sys.executable, "-c", code, *args),
            timeout=PATIENCE,
            env={"PYTHONPATH": str(SOURCE)},
            check=check,
        )

    def spawn(self, space: str, code: str, *args: str) -> None:
        """Start a python program that says ``ready`` when it listens."""
        read, write = os.pipe()
        argv = self.inside(space, sys.executable, "-c", code, *args)
        self.processes.append(run.spawn(argv, log=write))
        os.close(write)
        with os.fdopen(read, "rb") as output:
            line = output.readline()
            assert line == b"ready\n", line + output.read()

    def add_container(self, ipv4: str, ipv6: str) -> str:
        """A namespace on the bridge, as LXC would make it; what it may say is in ``links``."""
        space = f"{self.host}-c{len(self.extra)}"
        one = Attachment("simple", IPv4Interface(ipv4), IPv6Interface(ipv6))
        (link,) = plan_of(one).links({WEB})
        ip("netns", "add", space)
        self.extra.append(space)
        self.links.append(link)
        peer = ("peer", "eth0", "address", link.hardware, "netns", space)
        ip("-n", self.host, "link", "add", link.port, "type", "veth", *peer)
        ip("-n", self.host, "link", "set", link.port, "master", "mos0", "up")
        ip("-n", space, "link", "set", "lo", "up")
        ip("-n", space, "link", "set", "eth0", "up")
        ip("-n", space, "addr", "add", ipv4, "dev", "eth0")
        ip("-n", space, "addr", "add", ipv6, "dev", "eth0", "nodad")
        ip("-n", space, "route", "add", "default", "via", "10.0.3.1")
        ip("-n", space, "-6", "route", "add", "default", "via", "fd6d:6f73:3000:3::1")
        return space

    def add_outside(self, device: str) -> str:
        """A second peer, on an uplink of its own: 198.51.100.2 and 2001:db8:1::2."""
        space = f"{self.host}-{device}"
        ip("netns", "add", space)
        self.others.append(space)
        ip("-n", self.host, "link", "add", device, "type", "veth", "peer", "eth0", "netns", space)
        for where, name, last in ((self.host, device, 1), (space, "eth0", 2)):
            ip("-n", where, "addr", "add", f"198.51.100.{last}/24", "dev", name)
            ip("-n", where, "addr", "add", f"2001:db8:1::{last}/64", "dev", name, "nodad")
            ip("-n", where, "link", "set", name, "up")
        ip("-n", space, "link", "set", "lo", "up")
        ip("-n", space, "route", "add", "default", "via", "198.51.100.1")
        ip("-n", space, "-6", "route", "add", "default", "via", "2001:db8:1::1")
        return space

    def wait_for_link_addresses(self) -> None:
        """Neighbour discovery is silent until link-local addresses have passed their own test."""
        for space in (*self.extra, *self.others, self.host, self.outside):
            wait_for(
                lambda space=space: not self.run(space, "ip", "addr", "show", "tentative").text  # type: ignore[misc]
            )

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        for space in (*self.extra, *self.others, self.host, self.outside):
            with suppress(ToolError):
                ip("netns", "del", space)

    def forward(self, *forwards: Forward, links: Sequence[Link] | None = None) -> None:
        """Make exactly ``forwards`` hold and let exactly ``links`` (all that there are) speak, by
        the steps that mosd takes."""
        known = self.links if links is None else links
        words = [f"{f.protocol},{f.host},{f.port},{f.ipv4},{f.ipv6}" for f in forwards]
        words += [f"link,{one.port},{one.hardware},{one.ipv4},{one.ipv6}" for one in known]
        self.python(self.host, FORWARD, *words)

    def sysctl(self, space: str, name: str, value: str = "") -> str:
        """Return a network setting, after it was set if there is a value."""
        if value:
            self.run(space, "sh", "-c", f"echo {value} > /proc/sys/net/{name}")
        return self.run(space, "cat", f"/proc/sys/net/{name}").text.strip()

    def take_walls_away(self) -> None:
        """Let everybody say everything to everybody."""
        self.run(self.host, "nft", "flush", "ruleset")


@contextmanager
def running_machine() -> Iterator[Machine]:
    """Make a machine and take it away at the end."""
    name = f"mt{secrets.token_hex(3)}"
    result = Machine(f"{name}-o", f"{name}-h")
    try:
        ip("netns", "add", result.outside)
        ip("netns", "add", result.host)
        out, host = result.outside, result.host
        result.sysctl(host, "ipv4/ip_forward", "0")  # a new namespace has what Docker switched on
        ip("-n", host, "link", "add", "up0", "type", "veth", "peer", "eth0", "netns", out)
        ip("-n", host, "link", "add", "mos0", "type", "bridge")
        for name in ("iptables", "ip6tables", "arptables"):
            # The appliance has no br_netfilter; where it is, bridged frames are shown as routed.
            result.sysctl(host, f"bridge/bridge-nf-call-{name}", "0")
        for space, device, ipv4, ipv6 in (
            (host, "up0", "192.0.2.1/24", "2001:db8::1/64"),
            (host, "mos0", "10.0.3.1/24", "fd6d:6f73:3000:3::1/64"),
            (out, "eth0", "192.0.2.2/24", "2001:db8::2/64"),
        ):
            ip("-n", space, "addr", "add", ipv4, "dev", device)
            ip("-n", space, "addr", "add", ipv6, "dev", device, "nodad")
            ip("-n", space, "link", "set", device, "up")
            ip("-n", space, "link", "set", "lo", "up")
        for family in ("-4", "-6"):
            via = "192.0.2.1" if family == "-4" else "2001:db8::1"
            ip("-n", out, family, "route", "add", "default", "via", via)
        yield result
    finally:
        result.close()
