from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.boot.environment import (
    check_command_line,
    floor_clock,
    read_text,
    wait_for,
)
from machineos.document.between.bootsettings import Settings
from machineos.errors import BootError
from vectors.clock import FixedClock

LINE = "console=ttyS0,115200n8 panic=10 lsm=lockdown,ipe lockdown=integrity"
SETTINGS = Settings(
    mode="run", policy_version="0001", command_line=LINE, kernel="6.12", epoch=1_700_000_000,
    modules=(),
)  # fmt: skip


class Ticking:
    """A clock on which only sleeping takes time."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time, UTC)

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@pytest.mark.parametrize("line", [LINE, LINE + "\n", "  " + LINE.replace(" ", "  ")])
def test_the_signed_command_line(line: str) -> None:
    check_command_line(SETTINGS, line)


@pytest.mark.parametrize(
    "line",
    [
        f"{LINE} init=/bin/sh", f"init=/bin/sh {LINE}", f"{LINE} rd.break", f"{LINE} single",
        f"{LINE} systemd.debug_shell", f"{LINE} ipe.enforce=0", f"{LINE} lockdown=none",
        LINE.replace("ipe", "yama"), LINE.removesuffix(" lockdown=integrity"), "", LINE.upper(),
        f"{LINE} {LINE}", f"{LINE} --", " ".join(reversed(LINE.split())), f"{LINE}\0init=/bin/sh",
    ],
)  # fmt: skip
def test_any_other_command_line(line: str) -> None:
    """Row 20 of the attacks."""
    with pytest.raises(BootError, match="not the one that was signed"):
        check_command_line(SETTINGS, line)


@given(st.text(max_size=120))
def test_any_addition(text: str) -> None:
    if not text.split():
        check_command_line(SETTINGS, LINE + text)
        return
    for line in (f"{LINE} {text}", f"{text} {LINE}"):
        with pytest.raises(BootError):
            check_command_line(SETTINGS, line)


def test_waiting() -> None:
    clock = Ticking()
    assert wait_for("it", lambda: 7 if clock.time > 1 else None, clock, seconds=5) == 7
    assert 1 < clock.time < 1.2
    with pytest.raises(BootError, match="a disk did not appear within 5 s"):
        wait_for("a disk", lambda: None, clock, seconds=5)
    assert 6 < clock.time < 6.5
    assert wait_for("what is falsy", lambda: "", clock, seconds=0) == ""


def test_a_clock_that_is_right_is_left_alone() -> None:
    before = datetime.now(UTC)
    floor_clock(SETTINGS, FixedClock())
    assert abs((datetime.now(UTC) - before).total_seconds()) < 60


def test_read_text(tmp_path: Path) -> None:
    path = tmp_path / "serial"
    path.write_bytes(b"SN-1 \xff\n")
    assert read_text(str(path)) == "SN-1 �"
    assert read_text(str(tmp_path / "none")) == ""
    path.write_bytes(b"x" * 100_000)
    assert len(read_text(str(path))) == 65536
