"""Processes by pid and start time."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from machineos.core import run
from machineos.core.clock import SystemClock
from machineos.errors import MissingError
from machineos.vm.process import Process, from_pid_file, parse_stat
from waiting import PATIENCE, wait_for

# A process, and the pid file that its arguments name.
Sleeper = tuple[subprocess.Popen[bytes], Path]
STAT = "812 (a) b (c) S 1 812 812 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9"


def test_stat_of_a_command_with_parentheses() -> None:
    assert parse_stat(STAT) == ("S", 4711)


@pytest.mark.parametrize("text", ["", "1 (x", "1 (x) S 1 2"])
def test_not_a_stat(text: str) -> None:
    with pytest.raises(ValueError):
        parse_stat(text)


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Sleeper]:
    """A process whose arguments name a pid file, as QEMU's do."""
    pid_file = tmp_path / "x.pid"
    with (tmp_path / "log").open("wb") as log:
        child = run.spawn(["sh", "-c", "sleep 3600 & wait", str(pid_file)], log=log, detach=True)
    pid_file.write_text(f"{child.pid}\n")
    # Between fork and exec the arguments are still ours.
    arguments = Path(f"/proc/{child.pid}/cmdline")
    wait_for(lambda: os.fsencode(pid_file) in arguments.read_bytes(), during=child)
    yield child, pid_file
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def test_alive_until_it_ends(sleeper: Sleeper) -> None:
    child, _ = sleeper
    process = Process.of(child.pid)
    assert process.alive
    assert not process.wait(0.05, SystemClock())
    process.send(signal.SIGKILL)
    assert process.wait(PATIENCE, SystemClock())  # a zombie: nobody has reaped it yet
    assert not process.alive


def test_a_reused_pid_is_another_process(sleeper: Sleeper) -> None:
    child, _ = sleeper
    other = Process(child.pid, Process.of(child.pid).start - 1)
    assert not other.alive
    other.send(signal.SIGKILL)
    assert other.wait(0, SystemClock())
    assert Process.of(child.pid).alive


def test_no_such_process() -> None:
    with pytest.raises(MissingError):
        Process.of(2**22 + 1)
    Process(2**22 + 1, 1).send(signal.SIGKILL)


def test_pid_file_is_believed_only_by_its_process(sleeper: Sleeper, tmp_path: Path) -> None:
    child, pid_file = sleeper
    assert from_pid_file(pid_file) == Process.of(child.pid)
    stranger = tmp_path / "stranger.pid"
    stranger.write_text(f"{child.pid}\n")
    assert from_pid_file(stranger) is None
    assert from_pid_file(tmp_path / "absent.pid") is None
    stranger.write_text("garbage")
    assert from_pid_file(stranger) is None


def test_wait_wakes_at_the_end(sleeper: Sleeper) -> None:
    """Not at the end of the time that it was given: that is longer than any test may take."""
    child, _ = sleeper
    process = Process.of(child.pid)
    timer = threading.Timer(0.05, process.send, [signal.SIGKILL])
    timer.start()
    assert process.wait(1e6, SystemClock())
    timer.join()
