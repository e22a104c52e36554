from __future__ import annotations

from pathlib import Path

import pytest

from machineos.boot.console import Console
from vectors.clock import FixedClock


@pytest.fixture
def console(tmp_path: Path) -> Console:
    for name in ("console", "kmsg"):
        (tmp_path / name).touch()
    return Console(tmp_path / "console", tmp_path / "kmsg", FixedClock())


def test_one_line_in_both_places(console: Console, tmp_path: Path) -> None:
    console.say("a\nb\r\n  c")
    console.fail("why")
    assert (tmp_path / "console").read_bytes() == (
        b"[    0.00] machineos: a b c\r\n[    0.00] machineos: BOOT FAILED: why\r\n"
    )
    assert (tmp_path / "kmsg").read_bytes() == (
        b"<6>machineos: a b c\n<3>machineos: BOOT FAILED: why\n"
    )


def test_the_kernel_takes_no_more_than_a_record(console: Console, tmp_path: Path) -> None:
    console.fail("x" * 5000)
    assert len((tmp_path / "kmsg").read_bytes()) <= 976
    assert len((tmp_path / "console").read_bytes()) > 5000
