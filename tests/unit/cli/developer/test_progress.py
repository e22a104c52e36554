"""What a person sees: lines anywhere, a spinner on a terminal only."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from machineos.cli.developer import progress
from machineos.oci.graph.copy import Progress
from waiting import PATIENCE

WORK = """
import sys
import time
from machineos.cli.developer import progress
from machineos.oci.graph.copy import Progress
with progress.shown(plain=len(sys.argv) > 1) as watch:
    watch.say("first [b]line[/b]")
    for _ in range(20):  # long enough to be drawn
        watch.copied(Progress(bytes=3 << 20, bytes_total=5 << 20, skipped=("one: broken",)))
        time.sleep(0.05)
    watch.say("last line")
print("result")
print("rich", "rich" in sys.modules)
"""


def test_without_a_terminal_there_are_lines_and_no_rich() -> None:
    argv = [sys.executable, "-c", WORK]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stderr == "first [b]line[/b]\nskip one: broken\nlast line\n"
    assert done.stdout == "result\nrich False\n"


def on_a_terminal(*words: str, columns: int = 80, term: str = "xterm") -> tuple[str, str]:
    """Run the work with a terminal as its standard error; return what both streams got."""
    controller, terminal = pty.openpty()
    try:
        env = {**os.environ, "TERM": term, "COLUMNS": str(columns)}
        child = subprocess.Popen(
            [sys.executable, "-c", WORK, *words], stdout=subprocess.PIPE, stderr=terminal, env=env
        )
        os.close(terminal)
        shown = b""
        while True:
            try:
                piece = os.read(controller, 1 << 16)
            except OSError:  # everybody has closed the other end
                break
            if not piece:
                break
            shown += piece
        result, _ = child.communicate(timeout=PATIENCE)
        assert child.returncode == 0, shown
        return result.decode(), shown.decode()
    finally:
        os.close(controller)


def test_a_terminal_that_takes_no_line_back_gets_each_at_once() -> None:
    result, shown = on_a_terminal(term="dumb")
    assert shown.splitlines() == ["first [b]line[/b]", "skip one: broken", "last line"]
    assert "result" in result


def test_on_a_terminal_the_last_line_moves_and_every_line_stays_once() -> None:
    result, shown = on_a_terminal()
    assert result == "result\nrich True\n"
    assert "first [b]line[/b]  3 of 5 MiB" in shown
    # What stands is what is followed by a new line and not taken back.
    stayed = [line.rpartition("\x1b[2K")[2].strip("\r") for line in shown.split("\n")]
    for line in ("first [b]line[/b]", "skip one: broken", "last line"):
        assert stayed.count(line) == 1, stayed


def test_for_a_program_nothing_is_drawn_on_a_terminal_either() -> None:
    result, shown = on_a_terminal("plain")
    assert result == "result\nrich False\n"
    assert shown.replace("\r", "") == "first [b]line[/b]\nskip one: broken\nlast line\n"


@pytest.mark.parametrize(
    ("done", "total", "text"),
    [(0, 0, ""), (0, 1 << 20, "  0 of 1 MiB"), (3 << 20, 5 << 20, "  3 of 5 MiB")],
)
def test_an_amount(done: int, total: int, text: str) -> None:
    assert progress.amount(done, total) == text


def test_what_is_left_out_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    lines = progress.Lines()
    for skipped in (("a",), ("a", "b"), ("a", "b")):
        lines.copied(Progress(bytes_total=7, skipped=skipped))
    assert capsys.readouterr().err == "skip a\nskip b\n"


def test_the_appliance_has_no_rich() -> None:
    source = Path(progress.__file__).parents[1]
    for path in (*source.glob("*.py"), *(source / "operator").glob("*.py")):
        assert "rich" not in path.read_text(), path
