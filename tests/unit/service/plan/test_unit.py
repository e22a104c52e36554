"""What single lines of a unit say; the whole of it is in the golden files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from machineos.service.plan import unit
from unit.service.plan.cases import PLAIN

if TYPE_CHECKING:
    from collections.abc import Sequence

UNITS = Path(__file__).parents[4] / "src/machineos/build/os/hostfs/systemd"
# systemd.exec(5): each of them is a filter, or may become one.
FILTERS = {
    "LockPersonality", "PrivateDevices", "ProtectClock", "ProtectHostname", "ProtectKernelLogs",
    "ProtectKernelModules", "ProtectKernelTunables", "RestrictAddressFamilies",
    "RestrictFileSystems", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID",
    "SystemCallArchitectures", "SystemCallErrorNumber", "SystemCallFilter", "SystemCallLog",
}  # fmt: skip


def lines(**changes: object) -> list[str]:
    return unit.render(replace(PLAIN, **changes), ["/usr/bin/lxc-start"]).splitlines()


def test_a_version_is_text() -> None:
    assert "Description=machineOS service web 1%%n%%" in lines(version="1%n%")


def test_only_who_is_shown_the_resolver_waits_for_it() -> None:
    after = "After=systemd-resolved.service"
    assert after not in lines()
    assert after in lines(resolv_conf=Path("/run/x"))


def test_no_task_of_it_is_without_a_limit() -> None:
    assert "TasksMax=4096" in lines()
    assert "LimitNOFILE=65536" in lines()
    assert not [line for line in lines() if "infinity" in line]


def settings(lines: Sequence[str]) -> dict[str, str]:
    return dict(line.partition("=")[::2] for line in lines if "=" in line)


def test_one_service_leaves_room_for_others_and_all_of_them_for_the_host() -> None:
    """A share of the memory, so that it fits the smallest machine."""
    one, all_of_them = settings(lines()), settings((UNITS / "machineos.slice").read_text().split())
    high, most, together = (
        int(found.removesuffix("%"))
        for found in (one["MemoryHigh"], one["MemoryMax"], all_of_them["MemoryMax"])
    )
    assert 0 < high < most < together <= 75
    assert one["MemorySwapMax"] == all_of_them["MemorySwapMax"] == "0"
    assert int(all_of_them["TasksMax"].removesuffix("%")) <= 75
    assert (one["Slice"], one["Delegate"]) == ("machineos.slice", "yes")
    assert one["OOMPolicy"] == "kill"  # whole: what is left of it would only limp
    assert one["LimitCORE"] == "0"
    assert {one["CPUWeight"], one["IOWeight"], all_of_them["IOWeight"]} == {"100"}


def test_a_service_neither_floods_the_log_nor_says_how_grave_its_lines_are() -> None:
    found = settings(lines())
    assert found["SyslogLevelPrefix"] == "no"
    assert (found["LogRateLimitIntervalSec"], found["LogRateLimitBurst"]) == ("10", "1000")


def test_no_option_of_a_unit_that_starts_lxc_is_a_system_call_filter() -> None:
    """LXC would load none of its own; what MDWE is, systemd sets by prctl."""
    keys = {*settings(lines())}
    assert not keys & FILTERS
    assert not {key for key in keys if key.startswith(("Protect", "Private", "Restrict", "System"))}
    assert settings(lines())["MemoryDenyWriteExecute"] == "yes"
    dropped = settings((UNITS / "machineos-.service.d/10-locked.conf").read_text().splitlines())
    assert {key for key in dropped if not key.startswith("#")} == {"MemoryDenyWriteExecute"}
