"""The one door to other programs, with real programs."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import pytest

from machineos.core import run as running
from machineos.core.run import Running, find, run, spawn
from machineos.errors import MissingToolError, ToolError, ToolTimeoutError
from waiting import PATIENCE, wait_for


def test_output_and_status() -> None:
    result = run(["sh", "-c", "echo out; echo err >&2; exit 3"], timeout=PATIENCE, check=False)
    assert (result.status, result.text, result.stderr) == (3, "out", b"err\n")


def test_success_is_what_the_caller_says() -> None:
    assert run(["sh", "-c", "exit 3"], timeout=PATIENCE, success=(0, 3)).status == 3
    with pytest.raises(ToolError, match="exit status 3"):
        run(["sh", "-c", "exit 3"], timeout=PATIENCE)


def test_the_message_has_the_end_of_standard_error() -> None:
    script = "i=0; while [ $i -lt 2000 ]; do echo line $i >&2; i=$((i+1)); done; exit 1"
    with pytest.raises(ToolError, match="line 1999") as caught:
        run(["sh", "-c", script], timeout=PATIENCE)
    assert "line 100\n" not in caught.value.message
    assert len(caught.value.message) < 2500


def test_a_signal_has_a_name() -> None:
    with pytest.raises(ToolError, match="signal SIGKILL"):
        run(["sh", "-c", "kill -9 $$"], timeout=PATIENCE)


def test_nothing_of_our_environment_leaks() -> None:
    seen = dict(line.split("=", 1) for line in run(["env"], timeout=PATIENCE).text.splitlines())
    assert seen == {**running.environment()}
    assert run(["printenv", "A"], timeout=PATIENCE, env={"A": "b"}).text == "b"


def test_standard_input_is_closed_unless_given() -> None:
    assert run(["cat"], timeout=PATIENCE).stdout == b""
    assert run(["cat"], timeout=PATIENCE, input=b"x" * 200_000).stdout == b"x" * 200_000
    assert run(["cat"], timeout=PATIENCE, input=b"").stdout == b""


def test_a_timeout_kills_the_whole_group(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    limit = 0.5
    while not (pid.exists() and pid.read_text().strip()):  # a slow shell had not come that far
        with pytest.raises(ToolTimeoutError, match="no end after"):
            run(["sh", "-c", f"sleep 3600 & echo $! > {pid}; wait"], timeout=limit)
        limit *= 2
    child = Path(f"/proc/{int(pid.read_text())}/stat")

    def gone() -> bool:
        try:
            # Nobody may be there to reap the orphan: a zombie is dead enough.
            return ") Z " in child.read_text()
        except OSError:
            return True

    wait_for(gone, what="the end of the grandchild")


def test_only_the_named_descriptors_are_passed() -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    try:
        listing = run(["ls", "/proc/self/fd"], timeout=PATIENCE).text.split()
        assert str(writer) not in listing
        passed = run(["ls", "/proc/self/fd"], timeout=PATIENCE, pass_fds=(writer,)).text.split()
        assert str(writer) in passed
    finally:
        os.close(reader)
        os.close(writer)


def test_what_is_missing(tmp_path: Path) -> None:
    assert find("no-such-program") is None
    with pytest.raises(MissingToolError, match="not installed"):
        run(["no-such-program"], timeout=PATIENCE)
    with pytest.raises(MissingToolError, match="working directory"):
        run(["true"], timeout=PATIENCE, cwd=tmp_path / "none")
    with pytest.raises(MissingToolError), Path(os.devnull).open("wb") as log:
        spawn(["no-such-program"], log=log)


def test_what_cannot_be_started(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("x")
    for argv in ([plain], ["true", "x" * (1 << 20)]):
        with pytest.raises(ToolError, match="cannot be started"):
            run(argv, timeout=PATIENCE)
    with pytest.raises(ToolError, match="cannot be started"):
        run(["true"], timeout=PATIENCE, cwd=plain)


def test_spawn_writes_to_the_log_and_has_its_own_group(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file:
        process = spawn(["sh", "-c", "echo out; echo err >&2"], log=file)
    assert process.wait(PATIENCE) == 0
    assert log.read_text() == "out\nerr\n"
    with log.open("wb") as file:
        process = spawn(["sleep", "60"], log=file, detach=True)
    try:
        assert os.getsid(process.pid) == process.pid
    finally:
        process.kill()
        process.wait()


def test_what_is_fed_arrives_whole() -> None:
    def feed(output: int) -> None:
        for _ in range(100):
            os.write(output, b"x" * 10_000)

    assert run(["cat"], feed=feed, timeout=PATIENCE).stdout == b"x" * 1_000_000


def test_a_program_that_does_not_read_ends_what_is_fed() -> None:
    def endless(output: int) -> None:
        while True:
            os.write(output, bytes(1 << 16))

    assert run(["true"], feed=endless, timeout=PATIENCE).status == 0
    with pytest.raises(ToolError, match="false: exit status 1"):
        run(["false"], feed=endless, timeout=PATIENCE)
    with pytest.raises(ToolTimeoutError):
        run(["sleep", "10"], feed=endless, timeout=0.2)


def test_what_goes_wrong_while_feeding_is_raised() -> None:
    def broken(output: int) -> None:
        os.write(output, b"x")
        raise EOFError("half")

    with pytest.raises(EOFError, match="half"):
        run(["cat"], feed=broken, timeout=PATIENCE)


def test_a_program_on_its_way() -> None:
    assert Running(["true"]).wait(PATIENCE).status == 0
    result = Running(["sh", "-c", "echo out; echo err >&2"]).wait(PATIENCE)
    assert (result.text, result.stderr) == ("out", b"err\n")
    refused = Running(["sh", "-c", "echo no such group >&2; echo >&2 at all; exit 5"])
    with pytest.raises(ToolError, match="exit status 5: no such group\nat all"):
        refused.wait(PATIENCE)
    with pytest.raises(MissingToolError, match="not installed"):
        Running(["no-such-program"])
    slow = Running(["sleep", "60"])
    with pytest.raises(ToolTimeoutError, match=r"sleep: no end after 0\.1 s"):
        slow.wait(0.1)
    assert slow._process.returncode == -signal.SIGKILL


def test_a_program_says_by_a_descriptor_that_it_has_ended() -> None:
    """So any number of them can be waited for at a time."""
    release, hold = os.pipe()
    program = Running(["sh", "-c", f"read line </proc/{os.getpid()}/fd/{release}; echo done"])
    try:
        assert program.fileno() == program.fileno()
        assert select.select([program], [], [], 0)[0] == []
        os.write(hold, b"\n")
        assert select.select([program], [], [], 60)[0] == [program]
        assert program.finish().text == "done"
    finally:
        os.close(release)
        os.close(hold)


def test_a_program_on_its_way_leaves_no_descriptor_and_no_child() -> None:
    def there() -> tuple[int, set[str]]:
        descriptors = len(list(Path("/proc/self/fd").iterdir()))
        tasks = Path("/proc/self/task").iterdir()
        return descriptors, {
            pid for task in tasks for pid in (task / "children").read_text().split()
        }

    before = there()
    Running(["true"]).wait(60)
    ended = Running(["false"])
    select.select([ended], [], [], 60)
    with pytest.raises(ToolError):
        ended.finish()
    killed = Running(["sh", "-c", "sleep 60 & wait"])
    killed.fileno()
    killed.kill()
    with pytest.raises(MissingToolError):
        Running(["no-such-program"])
    assert there() == before
