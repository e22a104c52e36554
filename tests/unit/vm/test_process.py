"""Processes by pid and start time."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from machineos.core import run
from machineos.core.clock import SystemClock
from machineos.errors import MissingError
from machineos.vm.process import Process, from_pid_file, parse_stat

STAT = "812 (a) b (c) S 1 812 812 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9"


def test_stat_of_a_command_with_parentheses():
    assert parse_stat(STAT) == ("S", 4711)


@pytest.mark.parametrize("text", ["", "1 (x", "1 (x) S 1 2"])
def test_not_a_stat(text):
    with pytest.raises(ValueError):
        parse_stat(text)


@pytest.fixture
def sleeper(tmp_path):
    """A process whose arguments name a pid file, as QEMU's do."""
    pid_file = tmp_path / "x.pid"
    with (tmp_path / "log").open("wb") as log:
        child = run.spawn(["sh", "-c", "sleep 60 & wait", str(pid_file)], log=log, detach=True)
    pid_file.write_text(f"{child.pid}\n")
    while os.fsencode(pid_file) not in Path(f"/proc/{child.pid}/cmdline").read_bytes():
        time.sleep(0.01)  # between fork and exec the arguments are still ours
    yield child, pid_file
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def test_alive_until_it_ends(sleeper):
    child, _ = sleeper
    process = Process.of(child.pid)
    assert process.alive
    assert not process.wait(0.05, SystemClock())
    process.send(signal.SIGKILL)
    assert process.wait(5, SystemClock())  # a zombie: nobody has reaped it yet
    assert not process.alive


def test_a_reused_pid_is_another_process(sleeper):
    child, _ = sleeper
    other = Process(child.pid, Process.of(child.pid).start - 1)
    assert not other.alive
    other.send(signal.SIGKILL)
    assert other.wait(0, SystemClock())
    assert Process.of(child.pid).alive


def test_no_such_process():
    with pytest.raises(MissingError):
        Process.of(2**22 + 1)
    Process(2**22 + 1, 1).send(signal.SIGKILL)


def test_pid_file_is_believed_only_by_its_process(sleeper, tmp_path):
    child, pid_file = sleeper
    assert from_pid_file(pid_file) == Process.of(child.pid)
    stranger = tmp_path / "stranger.pid"
    stranger.write_text(f"{child.pid}\n")
    assert from_pid_file(stranger) is None
    assert from_pid_file(tmp_path / "absent.pid") is None
    stranger.write_text("garbage")
    assert from_pid_file(stranger) is None


def test_wait_wakes_at_the_end(sleeper):
    child, _ = sleeper
    process = Process.of(child.pid)
    timer = threading.Timer(0.05, process.send, [signal.SIGKILL])
    timer.start()
    clock = SystemClock()
    before = clock.monotonic()
    assert process.wait(30, clock)
    assert clock.monotonic() - before < 5
    timer.join()
