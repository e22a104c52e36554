"""Which watchdog systemd is told to feed."""

from __future__ import annotations

from pathlib import Path

import pytest

from machineos.boot.phases.watchdog import IDENTITIES, choose
from unit.boot.ends import handed_over
from unit.boot.worlds import machine

FILE = Path("/sysroot/run/systemd/system.conf.d/20-watchdog.conf")


@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        ((), None),
        (("", "", "", ""), None),
        (("Software Watchdog",), None),
        (("iTCO_wdt", "i6300ESB timer"), 1),
        (("Software Watchdog", "", "wdat_wdt"), 2),
        (("SP5100 TCO timer", "iTCO_wdt"), 1),
    ],
)
def test_it_is_chosen_by_what_it_is(found: tuple[str, ...], chosen: int | None) -> None:
    assert choose(found) == chosen


def test_the_order_is_by_how_well_they_are_known() -> None:
    assert IDENTITIES == ("i6300ESB timer", "iTCO_wdt", "SP5100 TCO timer", "wdat_wdt")


def test_systemd_is_told_which() -> None:
    made = machine()
    made.watchdogs = ("Software Watchdog", "iTCO_wdt")
    booted = handed_over(made)
    entry = booted.host.names.entry(FILE)
    assert entry is not None
    assert entry.data == b"[Manager]\nWatchdogDevice=/dev/watchdog1\n"
    assert any("the watchdog is iTCO_wdt" in line for line in booted.lines)


def test_without_one_systemd_is_told_nothing() -> None:
    booted = handed_over(machine())
    assert booted.host.names.entry(FILE) is None
    assert not any("watchdog" in line for line in booted.lines)
