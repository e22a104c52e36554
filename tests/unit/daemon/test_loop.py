"""One thread that waits for many things at once."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from machineos.core.clock import SystemClock
from machineos.core.command import Command, Result
from machineos.daemon.loop import Loop
from machineos.errors import MachineOSError, MissingToolError, ToolError, ToolTimeoutError
from waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator


class StuckError(Exception):
    """What a test waited for did not come."""


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop(SystemClock())

    def stuck() -> None:
        raise StuckError

    made.after(PATIENCE, stuck)
    yield made
    made.close()


def test_many_programs_run_at_a_time_and_all_is_heard_meanwhile(loop: Loop) -> None:
    """Each waits for the next: in turn, none would ever end. A descriptor is heard between."""
    count = 5
    pipes = [os.pipe() for _ in range(count + 1)]
    heard: list[str] = []

    def done(outcome: Result | MachineOSError) -> None:
        assert isinstance(outcome, Result)
        heard.append(outcome.text)
        if len(heard) == count + 1:
            loop.stop()

    for number in range(count):
        ours = f"/proc/{os.getpid()}/fd"
        source, target = f"{ours}/{pipes[number + 1][0]}", f"{ours}/{pipes[number][1]}"
        script = f"read line <{source}; echo {number}; echo >{target}"
        loop.start(Command(("sh", "-c", script), PATIENCE), done)

    def read() -> None:
        heard.append(f"descriptor {os.read(pipes[0][0], 10)!r}")
        loop.forget(pipes[0][0])
        if len(heard) == count + 1:
            loop.stop()

    loop.watch(pipes[0][0], read)

    def begin() -> None:
        os.write(pipes[count][1], b"\n")

    loop.after(0, begin)
    loop.run()
    assert sorted(heard) == ["0", "1", "2", "3", "4", "descriptor b'\\n'"]
    for pipe in pipes:
        for end in pipe:
            os.close(end)


def outcome(loop: Loop, *argv: str, timeout: float = PATIENCE) -> Result | MachineOSError:
    found: list[Result | MachineOSError] = []

    def done(given: Result | MachineOSError) -> None:
        found.append(given)
        loop.stop()

    loop.start(Command(argv, timeout), done)
    assert found == []  # never called from within
    loop.run()
    (one,) = found
    return one


def test_a_program_that_ends_well_leaves_what_it_wrote(loop: Loop) -> None:
    result = outcome(loop, "sh", "-c", "echo out; echo err >&2")
    assert isinstance(result, Result)
    assert (result.status, result.text, result.stderr) == (0, "out", b"err\n")


@pytest.mark.parametrize(
    ("argv", "kind", "words"),
    [
        (("sh", "-c", "echo no >&2; exit 3"), ToolError, "exit status 3: no"),
        (("no-such-program",), MissingToolError, "no-such-program is not installed"),
    ],
)
def test_a_program_that_fails_says_why(
    loop: Loop, argv: tuple[str, ...], kind: type[Exception], words: str
) -> None:
    error = outcome(loop, *argv)
    assert type(error) is kind
    assert words in str(error)


def test_a_program_that_does_not_end_is_killed(loop: Loop) -> None:
    error = outcome(loop, "sleep", "1000", timeout=0.05)
    assert type(error) is ToolTimeoutError
    assert str(error) == "sleep: no end after 0.05 s"
    # Its end, which comes now, is nobody's business any more.
    loop.after(0.05, loop.stop)
    loop.run()


def test_a_limit_is_called_off_with_the_program(loop: Loop) -> None:
    found: list[object] = []
    loop.start(Command(("true",), 0.2), found.append)
    loop.after(0.5, loop.stop)
    loop.run()
    assert len(found) == 1
    assert isinstance(found[0], Result | ToolTimeoutError)


def test_moments_come_in_their_order(loop: Loop) -> None:
    heard: list[int] = []
    loop.after(0.04, lambda: heard.append(2))
    loop.after(0, lambda: heard.append(0))
    loop.after(0, lambda: heard.append(1))
    off = loop.after(0.02, lambda: heard.append(9))
    loop.after(0.06, loop.stop)
    off.call_off()
    off.call_off()
    loop.run()
    assert heard == [0, 1, 2]


def test_a_moment_that_is_called_off_wakes_nobody() -> None:
    """The loop sleeps until the next one that counts."""
    loop = Loop(SystemClock())
    for _ in range(3):
        loop.after(0, loop.stop).call_off()
    assert loop._pause() is None
    loop.after(100, loop.stop)
    pause = loop._pause()
    assert pause is not None
    assert 0 < pause <= 100
    loop.after(-1, loop.stop)
    assert loop._pause() == 0.0
    loop.close()


def test_who_is_forgotten_by_another_is_not_called(loop: Loop) -> None:
    """Both have something to read at the same moment."""
    pipes = [os.pipe() for _ in range(2)]
    heard: list[int] = []

    def read(number: int) -> None:
        heard.append(number)
        for pipe in pipes:
            loop.forget(pipe[0])
        loop.stop()

    for number, pipe in enumerate(pipes):
        os.write(pipe[1], b"x")
        loop.watch(pipe[0], lambda number=number: read(number))  # type: ignore[misc]
    loop.run()
    assert len(heard) == 1
    for pipe in pipes:
        os.close(pipe[0])
        os.close(pipe[1])


def test_a_number_that_is_used_again_is_not_called_for_the_one_before(loop: Loop) -> None:
    first, second = os.pipe(), os.pipe()
    heard: list[str] = []

    def read(name: str, other: tuple[int, int]) -> None:
        heard.append(name)
        loop.forget(other[0])
        loop.watch(other[0], lambda: heard.append("new"))
        loop.stop()

    for pipe in (first, second):
        os.write(pipe[1], b"x")
    loop.watch(first[0], lambda: read("first", second))
    loop.watch(second[0], lambda: read("second", first))
    loop.run()
    assert len(heard) == 1
    for end in (*first, *second):
        os.close(end)


def test_a_signal_is_heard_between_two_calls(loop: Loop) -> None:
    heard: list[str] = []

    def end() -> None:
        heard.append("signal")
        loop.stop()

    before = signal.getsignal(signal.SIGUSR1)

    def call() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        heard.append("call went on")

    with loop.signals((signal.SIGUSR1,), end):
        loop.after(0, call)
        loop.run()
    assert heard == ["call went on", "signal"]
    assert signal.getsignal(signal.SIGUSR1) is before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_signal_before_the_loop_runs_is_not_lost(loop: Loop) -> None:
    with loop.signals((signal.SIGUSR1, signal.SIGUSR2), loop.stop):
        os.kill(os.getpid(), signal.SIGUSR2)
        loop.run()


def test_a_signal_of_somebody_else_is_not_ours(loop: Loop) -> None:
    heard: list[str] = []
    before = signal.signal(signal.SIGUSR2, lambda _number, _frame: heard.append("theirs"))
    try:
        with loop.signals((signal.SIGUSR1,), lambda: heard.append("ours")):
            os.kill(os.getpid(), signal.SIGUSR2)
            loop.after(0.05, loop.stop)
            loop.run()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert heard == ["theirs"]


def test_what_a_call_raises_ends_the_loop(loop: Loop) -> None:
    def fail() -> None:
        raise MachineOSError("no")

    loop.after(0, fail)
    with pytest.raises(MachineOSError, match="no"):
        loop.run()


def test_closing_ends_the_programs_that_are_waited_for() -> None:
    loop = Loop(SystemClock())
    heard: list[object] = []
    loop.start(Command(("sleep", "1000"), PATIENCE), heard.append)
    (program,) = loop._running
    loop.close()
    assert program._process.returncode == -signal.SIGKILL
    assert heard == []


def test_a_second_thread_changes_nothing(loop: Loop) -> None:
    end = threading.Event()
    other = threading.Thread(target=end.wait)
    other.start()
    try:
        result = outcome(loop, "true")
        assert isinstance(result, Result)
    finally:
        end.set()
        other.join()
