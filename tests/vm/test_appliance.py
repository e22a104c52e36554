"""The main chain in a guest: Secure Boot, TPM, verified root, a service that answers."""

from __future__ import annotations

import json
from typing import Any

from vm.guest import Guest


def test_it_booted_under_secure_boot(live: Guest) -> None:
    guid = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
    live.sh("mkdir -p /run/efi; mount -t efivarfs none /run/efi")
    value = live.must(f"od -An -tu1 /run/efi/SecureBoot-{guid}").split()
    assert value[-1] == "1"
    assert "[confidentiality]" in live.must("cat /sys/kernel/security/lockdown")


def test_status_is_good(live: Guest) -> None:
    status = json.loads(live.must("mosctl status --json"))
    assert status["good"] is True, status
    assert {s["name"]: s["state"] for s in status["services"]} == {
        "registry": "running",
        "alone": "running",
        "direct": "running",
    }


def test_the_root_cannot_be_written(live: Guest) -> None:
    for path in ("/x", "/usr/bin/x", "/usr/lib/systemd/system/x"):
        assert "Read-only file system" in live.sh(f"touch {path} 2>&1").output
    assert live.sh("mount -o remount,rw / 2>&1").status != 0


def test_ports_are_reachable_from_the_machine_itself(live: Guest) -> None:
    code = """
import urllib.request
for host in ("127.0.0.1", "10.0.2.15", "10.0.3.99:5000"):
    print(host, urllib.request.urlopen(f"http://{host}/v2/", timeout=300).status)
"""
    lines = live.python(code).splitlines()
    assert lines == ["127.0.0.1 200", "10.0.2.15 200", "10.0.3.99:5000 200"]


def test_killing_mosd_stops_no_service_and_leaks_nothing(fresh: Guest) -> None:
    def seen() -> tuple[str, ...]:
        mounts = fresh.must("cat /proc/self/mounts")
        return (
            fresh.must("systemctl show -P MainPID 'machineos-*.service' | sort"),
            mounts,
            fresh.must("ls /dev/mapper; losetup -l -n -O NAME,BACK-FILE; ls /sys/class/net"),
            fresh.must("nft list ruleset"),
        )

    before = seen()
    assert before[0].strip()
    old = fresh.must("systemctl show -P MainPID mosd")
    for _ in range(2):
        fresh.must(f"kill -9 {old}")
        fresh.wait_until(f"p=$(systemctl show -P MainPID mosd); test $p != 0 -a $p != {old}")
        fresh.wait_until("test $(systemctl show -P ActiveState mosd) = active")
        old = fresh.must("systemctl show -P MainPID mosd")
    fresh.wait_until("mosctl status --json | grep -q '\"good\": true'")
    assert seen() == before
    assert fresh.answer() == 200


def test_a_service_that_dies_is_started_again(fresh: Guest) -> None:
    pid = service(fresh, "registry")["pid"]
    fresh.must(f"kill -9 {pid}")
    fresh.wait_until("mosctl status --json | grep -q '\"good\": true' && "
                     f"! mosctl status --json | grep -q '\"pid\": {pid},'")  # fmt: skip
    assert service(fresh, "registry")["pid"] not in {0, pid}
    fresh.wait_answer()


def service(guest: Guest, name: str) -> dict[str, Any]:
    status = json.loads(guest.must("mosctl status --json"))
    found: dict[str, Any] = next(one for one in status["services"] if one["name"] == name)
    return found
