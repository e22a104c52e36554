"""What a port of the bridge lets through: frames written byte by byte, in network namespaces.

Each frame is sent twice, before the tables are there and after. Before, all of them arrive, or the
test would show nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from unit.service.system.frames import (
    ARP,
    BAD,
    GATEWAY,
    GOOD,
    IPV4,
    ME,
    OTHER,
    RESERVED,
    TCP,
    UDP,
    Speaker,
    arp,
    ether,
    four,
    tcp,
    udp,
)
from unit.service.system.machine import Machine, ip, running_machine
from waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

pytestmark = [pytest.mark.system, pytest.mark.tool("nft"), pytest.mark.tool("ip")]

# Writes what follows the mark in each frame, and ends each with a line.
WATCH = """
import re, socket, struct, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.bind((sys.argv[2], 0))
promiscuous = struct.pack('iHH8s', socket.if_nametoindex(sys.argv[2]), 1, 0, b'')
s.setsockopt(263, 1, promiscuous)
print('ready', flush=True)
while True:
    found = re.search(rb'MARK<([^>]*)>', s.recv(4000))
    if found:
        with open(sys.argv[1], 'ab') as file: file.write(found[1] + b'\\n')
"""
LISTEN = """
import re, socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('0.0.0.0', 6000))
print('ready', flush=True)
while True:
    found = re.search(rb'MARK<([^>]*)>', s.recv(4000))
    if found:
        with open(sys.argv[1], 'ab') as file: file.write(found[1] + b'\\n')
"""
SEND = """
import json, socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind((sys.argv[1], 0))
for text in json.load(open(sys.argv[2])): s.send(bytes.fromhex(text))
"""


@dataclass
class Ears:
    """A machine on which is heard what arrives: at the bridge's host, at the second container, and
    as a datagram at the host's address outside."""

    machine: Machine
    folder: Path

    def listen(self) -> None:
        """Begin to listen."""
        self.listen_at("host", self.machine.host, "mos0")
        self.listen_at("other", self.machine.extra[1], "eth0")
        self.listen_at("socket", self.machine.host)

    def listen_at(self, name: str, space: str, device: str = "") -> None:
        """Begin to listen at a device, or at the host's socket."""
        (self.folder / name).touch()
        self.machine.spawn(space, WATCH if device else LISTEN, str(self.folder / name), device)

    def heard(self, name: str) -> set[str]:
        return set((self.folder / name).read_text().splitlines())

    def send(
        self, space: str, frames: Mapping[str, bytes], last: str, *, device: str = "eth0"
    ) -> None:
        """Send frames, each with its name as its mark; wait until the one called ``last`` has
        arrived at the host."""
        file = self.folder / "frames"
        marked = [each + f"MARK<{name}>".encode() for name, each in frames.items()]
        file.write_text(json.dumps([each.hex() for each in marked]))
        self.machine.python(space, SEND, device, str(file))
        if last:
            wait_for(lambda: last in self.heard("host"), what=last)


def named(text: str, frames: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{text} {name}": frame for name, frame in frames.items()}


def to_host(mark: str, dest: str) -> bytes:
    """A datagram for the host's address outside, in a frame to a group that bridges keep."""
    words = f"MARK<{mark}>".encode()
    body = udp(size=len(words)) + words
    return ether(IPV4, four(UDP, body, dest="192.0.2.1"), dest=dest)


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ears]:
    """All frames were sent: first without tables, then with them."""
    with running_machine() as machine:
        for one in (ME, OTHER):
            machine.add_container(f"{one.four}/24", f"{one.six}/64")
        machine.wait_for_link_addresses()
        ears = Ears(machine, tmp_path_factory.mktemp("heard"))
        ears.listen()
        for text in ("open", "walled"):
            frames = named(text, GOOD)
            for name, dest in RESERVED.items():
                frames[f"{text} {name}"] = to_host(f"{text} {name}", dest)
            # What spoils what the bridge knows of its ports goes last.
            frames |= named(text, dict(reversed(BAD.items())))
            frames[f"{text} last"] = GOOD["arp question"]
            ears.send(machine.extra[0], frames, f"{text} last")
            machine.forward()
        yield ears


@pytest.mark.parametrize("name", GOOD)
def test_what_a_service_may_say_is_heard_by_the_host_alone(sent: Ears, name: str) -> None:
    assert f"open {name}" in sent.heard("host")
    assert f"walled {name}" in sent.heard("host")
    assert f"open {name}" in sent.heard("other")
    assert f"walled {name}" not in sent.heard("other")


@pytest.mark.parametrize("name", BAD)
def test_what_it_may_not_say_is_heard_by_nobody(sent: Ears, name: str) -> None:
    assert f"open {name}" in sent.heard("host")
    for ear in ("host", "other"):
        assert f"walled {name}" not in sent.heard(ear)


@pytest.mark.parametrize("name", RESERVED)
def test_no_group_address_leads_past_the_tables(sent: Ears, name: str) -> None:
    """A bridge hands what comes to these to its host as if the port had received it."""
    assert f"open {name}" in sent.heard("socket")
    assert f"walled {name}" not in sent.heard("socket")


def test_each_of_two_walls_stands_before_group_addresses(sent: Ears) -> None:
    machine = sent.machine
    for text, rules, options in (
        ("bridge", "flush chain inet machineos martians", ""),
        ("inet", "flush chain bridge machineos to_host", "group_fwd_mask 0"),
        ("none", "flush ruleset", "group_fwd_mask 0"),
    ):
        machine.forward()
        machine.run(machine.host, "nft", rules)
        if options:
            ip("-n", machine.host, "link", "set", "mos0", "type", "bridge", *options.split())
        frames = {
            f"{text} {name}": to_host(f"{text} {name}", dest) for name, dest in RESERVED.items()
        }
        sent.send(machine.extra[0], frames, "")
    wanted = {f"none {name}" for name in RESERVED}
    wait_for(lambda: wanted <= sent.heard("socket"))
    said = {name for name in sent.heard("socket") if not name.startswith("open")}
    assert said == wanted
    machine.forward()


def test_a_port_that_is_not_in_the_table_is_dead(sent: Ears) -> None:
    """As in the moment between its birth and the next tables; then it speaks."""
    machine = sent.machine
    third = Speaker("00:16:3e:00:03:0b", "10.0.3.11", "fd6d:6f73:3000:3::b", "fe80::b")
    space = machine.add_container(f"{third.four}/24", f"{third.six}/64")
    sent.listen_at("third", space, "eth0")
    good = ether(ARP, arp(third), source=third.mac)
    machine.forward(links=machine.links[:2])
    sent.send(space, {"early": good}, "")
    sent.send(machine.host, {"to all, early": ether(ARP, arp(GATEWAY))}, "", device="mos0")
    machine.forward()
    sent.send(space, {"late": good}, "late")
    sent.send(machine.host, {"to all, late": ether(ARP, arp(GATEWAY))}, "", device="mos0")
    wait_for(lambda: "to all, late" in sent.heard("third"))
    assert "early" not in sent.heard("host")
    assert "to all, early" not in sent.heard("third")
    assert "late" not in sent.heard("other")


def test_a_frame_for_one_service_is_not_shown_to_the_others(sent: Ears) -> None:
    """A bridge that does not know where an address is sends to all its ports."""
    machine = sent.machine
    machine.forward()
    sent.send(machine.extra[1], {"here": ether(ARP, arp(OTHER), source=OTHER.mac)}, "here")
    nobody = ether(IPV4, four(UDP, udp()), source=GATEWAY.mac, dest="00:16:3e:00:03:63")
    mine = ether(IPV4, four(UDP, udp()), source=GATEWAY.mac, dest=OTHER.mac)
    sent.send(machine.host, {"for nobody": nobody, "for the other": mine}, "", device="mos0")
    wait_for(lambda: "for the other" in sent.heard("other"))
    assert "for nobody" not in sent.heard("other")
    machine.take_walls_away()
    sent.send(machine.host, {"for nobody, open": nobody}, "", device="mos0")
    wait_for(lambda: "for nobody, open" in sent.heard("other"))
    machine.forward()


def test_what_cannot_be_masqueraded_does_not_leave(sent: Ears) -> None:
    """A packet that belongs to no connection, here for its checksum, would go out as it is: with
    the service's own address."""
    machine = sent.machine
    machine.forward()
    sent.listen_at("outside", machine.outside, "eth0")
    gateway = machine.run(machine.host, "cat", "/sys/class/net/mos0/address").text.strip()

    def routed(name: str, protocol: int) -> dict[str, bytes]:
        mark = f"MARK<{name}>".encode()  # behind the packet it would not be routed
        head = tcp() if protocol == TCP else udp(size=len(mark))
        return {name: ether(IPV4, four(protocol, head + mark), dest=gateway)}

    frames = {**routed("no connection", TCP), **routed("datagram", UDP)}
    sent.send(machine.extra[0], frames, "")
    wait_for(lambda: "datagram" in sent.heard("outside"))
    machine.run(machine.host, "nft", "insert", "rule", "inet", "machineos", "through", "accept")
    sent.send(machine.extra[0], routed("no connection, open", TCP), "")
    wait_for(lambda: "no connection, open" in sent.heard("outside"))
    assert "no connection" not in sent.heard("outside")
    machine.forward()
