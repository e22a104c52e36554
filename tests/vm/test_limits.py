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
    # The clock went on while the guest was put back, and what has a watchdog of systemd's is taken
    # for hanging and started anew: journald is that now, and not later.
    spoiled.must("systemctl restart systemd-journald")
    host = spoiled.must("systemctl show -P MainPID mosd systemd-journald dbus").split()
    assert "0" not in host, spoiled.sh("systemctl status --no-pager 'systemd-*'; dmesg").output
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


# Both read the disk past all caches for as long as the other does, each in a unit of the services.
READER = """
import mmap, os, sys, time
disk = os.open("/dev/vda", os.O_RDONLY | os.O_DIRECT)
size, total = 1 << 16, 0
page = mmap.mmap(-1, size)
start, end = int(sys.argv[1]) << 20, time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    os.preadv(disk, [page], start + total % (64 << 20))
    total += size
print(total)
"""
# The kernel is told that the disk reads 2 MB/s: slower than any that the test finds.
MODEL = (
    "ctrl=user model=linear rbps=2000000 rseqiops=100 rrandiops=100 "
    "wbps=2000000 wseqiops=100 wrandiops=100"
)
PACE = "enable={} ctrl=user rpct=0 rlat=100000 wpct=0 wlat=100000 min=100 max=100"


def shares(guest: Guest) -> float:
    """Return how much more a service reads that has ten times the weight of another."""
    for name, weight, start in (("heavy", 1000, 0), ("light", 100, 128)):
        guest.must(
            f"systemd-run --quiet --unit {name} --slice machineos.slice -p IOWeight={weight} "
            f"-p StandardOutput=file:/run/{name} python3 /run/reader.py {start} 20"
        )
    guest.wait_until("test -s /run/heavy && test -s /run/light", 300)
    heavy, light = guest.must("cat /run/heavy /run/light; rm /run/heavy /run/light").split()
    return int(heavy) / int(light)


def test_the_disk_is_shared_by_weights(spoiled: Guest) -> None:
    qos, model = "/sys/fs/cgroup/io.cost.qos", "/sys/fs/cgroup/io.cost.model"
    disk = spoiled.must("cat /sys/block/vda/dev").strip()
    assert spoiled.must(f"cat {qos}").startswith(f"{disk} enable=1 ctrl=auto")
    spoiled.put(READER.encode(), "/run/reader.py")
    spoiled.must(f"echo '{disk} {MODEL}' > {model} && echo '{disk} {PACE.format(1)}' > {qos}")
    assert shares(spoiled) > 4
    spoiled.must(f"echo '{disk} {PACE.format(0)}' > {qos}")
    assert shares(spoiled) < 2
