"""Containers as the kernel sees them (issue 2, part 11)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vm.guest import Guest

# The services by name, each as the daemon's status has it.
Services = dict[str, dict[str, Any]]

PAYLOADS = """
import glob, json
parent = {}
for path in glob.glob("/proc/[0-9]*/stat"):
    try:
        text = open(path).read()
    except OSError:
        continue
    parent[int(text.split()[0])] = int(text.rpartition(")")[2].split()[1])
out = {}
for one in json.load(open("/run/machineos/status.json"))["services"]:
    one["payload"] = [pid for pid, above in parent.items() if above == one["pid"]]
    if one["pid"]:
        out[one["name"]] = one
print(json.dumps(out))
"""


@pytest.fixture
def services(live: Guest) -> Services:
    """The services by name, as mosctl shows them, ``pid`` being that of the payload."""
    found: Services = json.loads(live.python(PAYLOADS).splitlines()[-1])
    for one in found.values():
        (one["pid"],) = one.pop("payload")  # the only child of lxc-start
    return found


def test_user_namespaces_are_disjoint_between_groups(live: Guest, services: Services) -> None:
    maps = {}
    for name, one in services.items():
        rows = live.must(f"cat /proc/{one['pid']}/uid_map").split()
        assert rows[0] == "0", (name, rows)
        maps[name] = (int(rows[1]), int(rows[2]))
    assert maps["alone"] == maps["direct"]  # one group, one range
    (first, size), (second, other) = maps["registry"], maps["alone"]
    assert first >= 100000
    assert second >= 100000
    assert first + size <= second or second + other <= first


def test_the_payload_is_nobody(live: Guest, services: Services) -> None:
    for name, uid in (("registry", 1000), ("alone", 1234)):
        one = services[name]
        status = live.must(f"cat /proc/{one['pid']}/status")
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        assert int(fields["Uid"].split()[0]) == one["hostid"] + uid
        for capability in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(fields[capability], 16) == 0, (name, capability)
        assert fields["NoNewPrivs"].strip() == "1"
        assert fields["Seccomp"].strip() == "2"


def test_every_unit_is_locked_but_the_console_of_tests(live: Guest, services: Services) -> None:
    keys = "Id,MemoryDenyWriteExecute,LockPersonality,OOMScoreAdjust"
    shown = live.must(f"systemctl show --state=active --property={keys} '*.service'")
    units = [dict(line.split("=", 1) for line in one.splitlines()) for one in shown.split("\n\n")]
    found = {unit["Id"]: unit for unit in units}
    assert found.pop("machineos-debug-console.service")["MemoryDenyWriteExecute"] == "no"
    assert {unit["MemoryDenyWriteExecute"] for unit in found.values()} == {"yes"}
    own = {one["unit"] for one in services.values()}
    # It is a filter, below which LXC may load none of its own.
    assert {name for name, unit in found.items() if unit["LockPersonality"] == "no"} == own
    assert found["mosd.service"]["OOMScoreAdjust"] == "-900"


def test_the_root_is_the_verified_volume_and_not_a_copy(live: Guest, services: Services) -> None:
    one = services["registry"]
    row = next(
        line for line in live.must(f"cat /proc/{one['pid']}/mountinfo").splitlines()
        if line.split()[4] == "/"
    )  # fmt: skip
    options, _, rest = row.partition(" - ")
    kind, device = rest.split()[:2]
    assert kind in {"squashfs", "erofs"}
    node = device.removeprefix("/dev/")
    assert live.must(f"cat /sys/block/{node}/dm/name").endswith("-verity")
    assert live.must(f"cat /sys/block/{node}/ro") == "1"
    assert "ro" in options.split()[5].split(",")
    assert "idmapped" in options
    code = f"import os;s=os.stat('/proc/{one['pid']}/root/usr/bin');print(s.st_uid)"
    # seen from outside the idmapped mount shows the group's own root
    assert int(live.python(code)) == one["hostid"]


def test_what_a_service_says_is_in_the_journal(live: Guest, services: Services) -> None:
    text = live.must("journalctl -b -o cat -t alone")
    assert "uid=1234(probe)" in text
    assert "probe done" in text
    assert "Read-only file system" in text
    assert [line.split()[1] for line in text.splitlines() if line.startswith("Cap")] == [
        "0" * 16
    ] * 5


def test_networks(live: Guest, services: Services) -> None:
    def namespace(pid: object) -> str:
        return live.must(f"readlink /proc/{pid}/ns/net")

    own = namespace("self")
    assert namespace(services["direct"]["pid"]) == own
    assert namespace(services["alone"]["pid"]) != own
    assert namespace(services["registry"]["pid"]) != own
    interfaces = live.must("journalctl -b -o cat -t alone").splitlines()
    assert "eth0" not in interfaces
    assert "lo" in interfaces


def test_each_service_has_its_own_namespaces(live: Guest, services: Services) -> None:
    for kind in ("mnt", "pid", "ipc", "uts", "user"):
        seen = {live.must(f"readlink /proc/{one['pid']}/ns/{kind}") for one in services.values()}
        seen.add(live.must(f"readlink /proc/self/ns/{kind}"))
        assert len(seen) == len(services) + 1, kind
