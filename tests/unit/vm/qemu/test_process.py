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
from machineos.vm.qemu.process import from_pid_file, is_alive, process_of, send, wait
from machineos.vm.qemu.record import Process
from waiting import PATIENCE, wait_for

Sleeper = tuple[subprocess.Popen[bytes], Path]
CLOCK = SystemClock()


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
    process = process_of(child.pid)
    assert is_alive(process)
    assert not wait(process, 0.05, CLOCK)
    send(process, signal.SIGKILL)
    assert wait(process, PATIENCE, CLOCK)  # a zombie: nobody has reaped it yet
    assert not is_alive(process)


def test_a_reused_pid_is_another_process(sleeper: Sleeper) -> None:
    child, _ = sleeper
    other = Process(child.pid, process_of(child.pid).start - 1)
    assert not is_alive(other)
    send(other, signal.SIGKILL)
    assert wait(other, 0, CLOCK)
    assert is_alive(process_of(child.pid))


def test_nobody_is_not_alive() -> None:
    assert not is_alive(None)


def test_no_such_process() -> None:
    with pytest.raises(MissingError):
        process_of(2**22 + 1)
    send(Process(2**22 + 1, 1), signal.SIGKILL)


def test_pid_file_is_believed_only_by_its_process(sleeper: Sleeper, tmp_path: Path) -> None:
    child, pid_file = sleeper
    assert from_pid_file(pid_file) == process_of(child.pid)
    stranger = tmp_path / "stranger.pid"
    stranger.write_text(f"{child.pid}\n")
    assert from_pid_file(stranger) is None
    assert from_pid_file(tmp_path / "absent.pid") is None
    stranger.write_text("garbage")
    assert from_pid_file(stranger) is None


def test_wait_wakes_at_the_end(sleeper: Sleeper) -> None:
    """Not at the end of the time that it was given: that is longer than any test may take."""
    child, _ = sleeper
    process = process_of(child.pid)
    timer = threading.Timer(0.05, send, [process, signal.SIGKILL])
    timer.start()
    assert wait(process, 1e6, CLOCK)
    timer.join()
