"""A service that takes more than its share, in an appliance that goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vm.guest import Guest

UNIT = "machineos-registry.service"
# Takes memory at once, as a part of the service: throttled by MemoryHigh it would take for ever.
HOG = """
import mmap, pathlib, subprocess
(main,) = subprocess.run(["systemctl", "show", "-P", "MainPID", "UNIT"], check=True,
                         capture_output=True, text=True).stdout.split()
(payload,) = pathlib.Path(f"/proc/{main}/task/{main}/children").read_text().split()
group = pathlib.Path(f"/proc/{payload}/cgroup").read_text().strip().partition("::")[2]
pathlib.Path(f"/sys/fs/cgroup{group}/cgroup.procs").write_text("0")
limit = int(pathlib.Path("/sys/fs/cgroup/machineos.slice/UNIT/memory.max").read_text())
print("limit", limit, flush=True)
mmap.mmap(-1, limit + (64 << 20), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
print("taken")
"""


def services(guest: Guest) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in json.loads(guest.must("mosctl status --json"))["services"]}


@pytest.mark.attack(
    "service",
    "takes all memory of the machine",
    "it is killed whole and started anew; no other service and nothing of the host is",
)
def test_a_service_that_takes_too_much_is_killed_whole_and_alone(spoiled: Guest) -> None:
    host = spoiled.must("systemctl show -P MainPID mosd systemd-journald dbus").split()
    before = services(spoiled)
    assert before["registry"]["restarts"] == 0
    hog = HOG.replace("UNIT", UNIT)
    spoiled.put(hog.encode(), "/run/hog.py")
    done = spoiled.sh("python3 /run/hog.py", 300)
    assert "limit" in done.output
    assert "taken" not in done.output
    killed = f"journalctl -b -o cat --no-pager | grep -q '{UNIT}: .*OOM killer'"
    spoiled.wait_until(killed, 120)
    spoiled.wait_until("mosctl status --json | grep -q '\"restarts\": 1'", 120)
    spoiled.wait_answer()
    after = services(spoiled)
    assert after["registry"]["pid"] != before["registry"]["pid"]
    for name in set(before) - {"registry"}:
        assert after[name]["pid"] == before[name]["pid"], name
    assert host == spoiled.must("systemctl show -P MainPID mosd systemd-journald dbus").split()
