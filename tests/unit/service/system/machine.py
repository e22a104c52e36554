"""A small machine in network namespaces: outside -- host -- container."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.core import run
from machineos.core.command import Result
from machineos.core.serviceid import ServiceId
from machineos.errors import ToolError
from machineos.service.plan.network import Forward
from waiting import PATIENCE, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).resolve().parents[4] / "src"
# The steps of the phase that forwards ports, taken on the host of the machine.
FORWARD = """
import sys
from ipaddress import ip_address as a
from pathlib import Path
from machineos.core.serviceid import ServiceId
from machineos.service.act.linux import LinuxHost
from machineos.service.plan import network, steps
from machineos.service.plan.network import Forward
from machineos.service.plan.machine import forwarding
out = []
for text in sys.argv[1:]:
    protocol, host, port, v4, v6 = text.split(',')
    out.append(Forward(ServiceId('web'), protocol, int(host), int(port), a(v4), a(v6)))
host = LinuxHost(Path('/'), layers=None, volumes=None, units=None, log=print)
for step in forwarding(out): step.on(host)
"""


def ip(*words: str) -> None:
    run.run(["ip", *words], timeout=PATIENCE)


def forward(protocol: str, host: int, port: int, number: int) -> Forward:
    """Return a forwarded port of the service ``web``, whose addresses end in ``number``."""
    ipv4, ipv6 = IPv4Address(f"10.0.3.{number}"), IPv6Address(f"fd6d:6f73:3000:3::{number}")
    return Forward(ServiceId("web"), protocol, host, port, ipv4, ipv6)


@dataclass
class Machine:
    """``outside`` is a peer on the uplink 192.0.2.0/24, ``host`` has the bridge mos0."""

    outside: str
    host: str
    extra: list[str] = field(default_factory=list)
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
        """A namespace on the bridge, as LXC would make it."""
        number = len(self.extra)
        space = f"{self.host}-c{number}"
        ip("netns", "add", space)
        self.extra.append(space)
        pair = f"c{number}"
        ip("-n", self.host, "link", "add", pair, "type", "veth", "peer", "eth0", "netns", space)
        ip("-n", self.host, "link", "set", pair, "master", "mos0", "up")
        ip("-n", space, "link", "set", "lo", "up")
        ip("-n", space, "link", "set", "eth0", "up")
        ip("-n", space, "addr", "add", ipv4, "dev", "eth0")
        ip("-n", space, "addr", "add", ipv6, "dev", "eth0", "nodad")
        ip("-n", space, "route", "add", "default", "via", "10.0.3.1")
        ip("-n", space, "-6", "route", "add", "default", "via", "fd6d:6f73:3000:3::1")
        return space

    def wait_for_link_addresses(self) -> None:
        """Neighbour discovery is silent until link-local addresses have passed their own test."""
        for space in (*self.extra, self.host, self.outside):
            wait_for(
                lambda space=space: not self.run(space, "ip", "addr", "show", "tentative").text  # type: ignore[misc]
            )

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        for space in (*self.extra, self.host, self.outside):
            with suppress(ToolError):
                ip("netns", "del", space)

    def forward(self, *forwards: Forward) -> None:
        """Make exactly ``forwards`` hold on the host, by the steps that mosd takes."""
        words = [f"{f.protocol},{f.host},{f.port},{f.ipv4},{f.ipv6}" for f in forwards]
        self.python(self.host, FORWARD, *words)


@contextmanager
def running_machine() -> Iterator[Machine]:
    """Make a machine and take it away at the end."""
    name = f"mt{secrets.token_hex(3)}"
    result = Machine(f"{name}-o", f"{name}-h")
    try:
        ip("netns", "add", result.outside)
        ip("netns", "add", result.host)
        out, host = result.outside, result.host
        ip("-n", host, "link", "add", "up0", "type", "veth", "peer", "eth0", "netns", out)
        ip("-n", host, "link", "add", "mos0", "type", "bridge")
        for space, device, ipv4, ipv6 in (
            (host, "up0", "192.0.2.1/24", "2001:db8::1/64"),
            (host, "mos0", "10.0.3.1/24", "fd6d:6f73:3000:3::1/64"),
            (out, "eth0", "192.0.2.2/24", "2001:db8::2/64"),
        ):
            ip("-n", space, "addr", "add", ipv4, "dev", device)
            ip("-n", space, "addr", "add", ipv6, "dev", device, "nodad")
            ip("-n", space, "link", "set", device, "up")
            ip("-n", space, "link", "set", "lo", "up")
        yield result
    finally:
        result.close()
