"""What single lines of a unit say; the whole of it is in the golden files."""

from __future__ import annotations

from pathlib import Path

from msgspec.structs import replace

from machineos.service.plan import unit
from unit.service.plan.cases import PLAIN


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
