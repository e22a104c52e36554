"""QMP: the event log, and calls to a real QEMU."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from machineos.core import run
from machineos.errors import MachineError
from machineos.host.virt import qmp
from machineos.host.virt.qemu import PROGRAM
from waiting import PATIENCE, wait_for

# Recorded from QEMU 7.2.
EVENTS = (
    b'{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": []}}\r\n'
    b'{"return": {}}\r\n'
    b'{"timestamp": {"seconds": 1795172966, "microseconds": 67976}, "event": "RESUME"}\r\n'
    b'{"timestamp": {"seconds": 1795172966, "microseconds": 69598}, "event": "SHUTDOWN", '
    b'"data": {"guest": false, "reason": "host-qmp-quit"}}\r\n'
)


@pytest.mark.parametrize(
    ("log", "wanted"),
    [
        (b"", None),
        (EVENTS, qmp.Shutdown(False, "host-qmp-quit")),
        (EVENTS[:-20], None),
        (EVENTS.replace(b'"data"', b'"date"'), None),
        (EVENTS + b'{"event": "SHUTDOWN"', qmp.Shutdown(False, "host-qmp-quit")),
        (b'["SHUTDOWN"]\n', None),
        (
            EVENTS + b'{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-panic"}}\n',
            qmp.Shutdown(True, "guest-panic"),
        ),
    ],
)
def test_parse_events(log: bytes, wanted: qmp.Shutdown | None) -> None:
    assert qmp.parse_events(log) == wanted


# The socket of a QEMU, and its process.
Monitor = tuple[Path, subprocess.Popen[bytes]]


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[Monitor]:
    """A QEMU without any guest, stopped before its first instruction."""
    path = tmp_path / "q"
    argv = [PROGRAM, "-nodefaults", "-display", "none", "-M", "none", "-S"]
    argv += ["-qmp", f"unix:{path},server=on,wait=off"]
    with (tmp_path / "log").open("wb") as log:
        child = run.spawn(argv, log=log)
    # The socket has its name before QEMU listens, and QEMU listens before it is ready to answer.
    wait_for(lambda: answers(path), during=child, what="QEMU answers")
    yield path, child
    child.kill()
    child.wait()


def answers(path: Path) -> bool:
    try:
        return bool(qmp.query_status(path))
    except MachineError:
        return False


@pytest.mark.tool(PROGRAM)
def test_calls(monitor: Monitor) -> None:
    path, child = monitor
    assert qmp.query_status(path) == "prelaunch"
    commands = [qmp.Command("query-name"), qmp.Command("query-status")]
    assert qmp.execute(path, commands, timeout=PATIENCE)[1]["status"] == "prelaunch"
    assert "prelaunch" in qmp.monitor(path, "info status", timeout=PATIENCE)
    with pytest.raises(MachineError, match="refused no-such-command"):
        qmp.execute(path, [qmp.Command("no-such-command")], timeout=PATIENCE)
    qmp.execute(path, [qmp.Command("quit")], timeout=PATIENCE)
    assert child.wait(PATIENCE) == 0


@pytest.mark.tool(PROGRAM)
def test_a_qemu_that_hangs_is_a_timeout(monitor: Monitor) -> None:
    path, child = monitor
    child.send_signal(signal.SIGSTOP)
    with pytest.raises(MachineError, match=r"no answer within 0\.2 s"):
        qmp.query_status(path, timeout=0.2)


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="no connection"):
        qmp.query_status(tmp_path / "absent")
    path = tmp_path / "q"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    with pytest.raises(MachineError, match="no connection"):
        qmp.query_status(path)
