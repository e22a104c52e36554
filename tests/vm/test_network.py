"""The network of a real appliance: who listens, what is routed, what a service may ask."""

from __future__ import annotations

import json

from vm.guest import Guest

# All sockets that wait for somebody: protocol, address, port. And the kinds of frames (ETH_P_*)
# that somebody reads raw.
LISTENERS = """
import json, socket, struct
def address(text):
    data = bytes.fromhex(text)
    packed = b''.join(data[at:at + 4][::-1] for at in range(0, len(data), 4))
    return socket.inet_ntop(socket.AF_INET6 if len(packed) == 16 else socket.AF_INET, packed)
found = []
for protocol, waits in (('tcp', '0A'), ('tcp6', '0A'), ('udp', '07'), ('udp6', '07')):
    for line in open(f'/proc/net/{protocol}').readlines()[1:]:
        words = line.split()
        host, port = words[1].split(':')
        if words[3] == waits:
            found.append((protocol, address(host), int(port, 16)))
frames = sorted({line.split()[3] for line in open('/proc/net/packet').readlines()[1:]})
print(json.dumps((found, frames)))
"""
ASK = """
import os, socket, sys
os.setgid(UID); os.setuid(UID)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # TCP would try again, and not say why
try:
    s.sendto(b'?', ('169.254.169.254', 80))
    print('sent')
except OSError as error:
    print(type(error).__name__)
"""
DHCP = {("udp", 68), ("udp6", 546)}


def test_nothing_of_the_host_listens_for_anybody_else(live: Guest) -> None:
    """But who asks for an address; the debug variant adds a serial port and no socket."""
    listeners, frames = json.loads(live.python(LISTENERS).splitlines()[-1])
    local = ("127.0.0.53", "127.0.0.54", "127.0.0.1", "::1")
    others = [one for one in listeners if one[1] not in local]
    assert [one for one in others if (one[0], one[2]) not in DHCP] == []
    # Nor does it wait for every address of the machine there.
    assert [one for one in others if one[1] in {"0.0.0.0", "::"}] == []
    assert "88cc" not in frames  # LLDP


def test_routing_is_on_for_links_and_not_for_the_machine(live: Guest) -> None:
    def setting(name: str) -> str:
        return live.must(f"cat /proc/sys/net/{name}")

    links = live.must("ls /sys/class/net").split()
    outside = [name for name in links if name not in {"lo", "mos0"} and not name.startswith("mv")]
    assert outside
    assert setting("ipv4/ip_forward") == "0"
    assert {setting(f"ipv4/conf/{name}/forwarding") for name in (*outside, "mos0")} == {"1"}
    assert setting("ipv4/conf/lo/forwarding") == "0"
    rules = live.must("nft list ruleset")
    for port in (name for name in links if name.startswith("mv")):
        assert f'"{port}" : goto from_{port}' in rules
    assert rules.count("policy drop") == 4


def test_only_the_host_itself_asks_for_metadata(live: Guest) -> None:
    """What nft drops of one's own is refused at once."""
    assert live.python(ASK.replace("UID", "200000")) == "PermissionError"
    assert live.python(ASK.replace("UID", "0")) == "sent"


def test_lo_is_up_without_a_network(live: Guest) -> None:
    status = json.loads(live.must("mosctl status --json"))
    (alone,) = (one for one in status["services"] if one["name"] == "alone")
    children = live.must(f"cat /proc/{alone['pid']}/task/{alone['pid']}/children").split()
    row = live.must(f"cat /proc/{children[0]}/net/if_inet6")
    assert row.split()[0] == "0" * 31 + "1"
