"""Calls over a socket: a server that misbehaves in every way, and a real QEMU."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from machineos.core import run
from machineos.core.clock import SystemClock
from machineos.errors import MachineError
from machineos.host.virt import qmp, qmpsocket
from machineos.host.virt.qemu import PROGRAM, SANDBOX
from waiting import PATIENCE, wait_for

CLOCK = SystemClock()
HELLO = b'{"QMP": {}}\r\n'
YES = b'{"return": {"status": "running"}}\n'


class Server:
    """One conversation: what was heard, after each line of it the next of ``says``."""

    def __init__(self, path: Path, says: list[bytes], *, ends: bool) -> None:
        self.heard: list[bytes] = []
        self._says = says
        self._ends = ends
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(8)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, contextlib.suppress(OSError):  # who gives up closes in our face
            for number, words in enumerate(self._says, 1):
                connection.sendall(words)
                if self._ends and number == len(self._says):
                    return
                if not self._hear(connection):
                    return
            while self._hear(connection):
                pass

    def _hear(self, connection: socket.socket) -> bool:
        line = connection.recv(1 << 16)
        self.heard.append(line)
        return bool(line)

    def close(self) -> None:
        self._thread.join(PATIENCE)
        self._listener.close()


Serve = Callable[..., tuple[Path, Server]]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    made: list[Server] = []

    def start(*says: bytes, ends: bool = False) -> tuple[Path, Server]:
        path = tmp_path / f"q{len(made)}"
        made.append(Server(path, list(says), ends=ends))
        return path, made[-1]

    yield start
    for server in made:
        server.close()


def ask(path: Path, *names: str, timeout: float = PATIENCE) -> list[object]:
    requests = [qmp.Request(name) for name in names]
    return qmpsocket.execute(path, requests, timeout=timeout, clock=CLOCK)


def test_it_negotiates_and_asks_one_after_the_other(serve: Serve) -> None:
    path, server = serve(HELLO, b'{"return": {}}\n', b'{"return": 1}\n', b'{"return": 2}\n')
    assert ask(path, "a", "b") == [1, 2]
    server.close()
    assert server.heard == [
        b'{"execute":"qmp_capabilities"}\n', b'{"execute":"a"}\n', b'{"execute":"b"}\n', b"",
    ]  # fmt: skip


def test_events_are_passed_over_wherever_they_stand(serve: Serve) -> None:
    event = b'{"event": "X"}\n'
    path, _ = serve(HELLO + event, event * 3 + b'{"return": {}}\n' + event, event + YES)
    assert qmpsocket.query_status(path, clock=CLOCK, timeout=PATIENCE) == "running"


def test_the_human_monitor_is_asked_by_its_line(serve: Serve) -> None:
    path, server = serve(HELLO, b'{"return": {}}\n', b'{"return": " said \\r\\n"}\n')
    assert qmpsocket.monitor(path, "savevm a", timeout=PATIENCE, clock=CLOCK) == "said"
    server.close()
    assert b'{"command-line":"savevm a"}' in server.heard[1]


def test_a_refusal_names_the_request(serve: Serve) -> None:
    no = b'{"error": {"class": "GenericError", "desc": "not now"}}\n'
    path, _ = serve(HELLO, b'{"return": {}}\n', no)
    with pytest.raises(MachineError, match="QEMU refused quit: not now"):
        ask(path, "quit")


def test_an_end_before_the_answer_is_no_connection(serve: Serve) -> None:
    for says in ((b"",), (HELLO,), (HELLO, b'{"return": {}}\n')):
        path, _ = serve(*says, ends=True)
        with pytest.raises(MachineError, match=r"no connection to QEMU: (it has ended|\[Errno)"):
            ask(path, "a", "b")


def test_silence_and_dripping_are_over_at_the_deadline(serve: Serve) -> None:
    path, _ = serve(HELLO)
    with pytest.raises(MachineError, match=r"QEMU gave no answer within 0\.1 s"):
        ask(path, "a", timeout=0.1)


def test_a_line_without_an_end_is_given_up(serve: Serve) -> None:
    path, _ = serve(b"x" * (qmp.MAX_LINE + (2 << 16)))
    with pytest.raises(MachineError, match="line of more than 1048576 bytes"):
        ask(path, "a")


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="no connection"):
        ask(tmp_path / "absent")
    path = tmp_path / "q"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    with pytest.raises(MachineError, match="no connection"):
        ask(path)


def test_who_finds_the_queue_full_waits_for_its_turn(tmp_path: Path) -> None:
    path = tmp_path / "q"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(path))
        listener.listen(0)
        first.connect(str(path))
        with pytest.raises(MachineError, match="no answer within"):
            ask(path, "a", timeout=0.1)


def answers(path: Path) -> bool:
    try:
        return bool(qmpsocket.query_status(path, clock=CLOCK))
    except MachineError:
        return False


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A QEMU without any guest, stopped before its first instruction."""
    path = tmp_path / "q"
    argv = [PROGRAM, *SANDBOX, "-nodefaults", "-display", "none", "-M", "none", "-S"]
    argv += ["-qmp", f"unix:{path},server=on,wait=off"]
    with (tmp_path / "log").open("wb") as log:
        child = run.spawn(argv, log=log)
    # The socket has its name before QEMU listens, and QEMU listens before it is ready to answer.
    wait_for(lambda: answers(path), during=child, what="QEMU answers")
    yield path, child
    child.kill()
    child.wait()


@pytest.mark.tool(PROGRAM)
def test_a_qemu_of_ours_may_not_do_everything(
    monitor: tuple[Path, subprocess.Popen[bytes]],
) -> None:
    """seccomp is in filter mode (2), and no later program gets more."""
    _, child = monitor
    status = Path(f"/proc/{child.pid}/status").read_text()
    assert re.findall(r"^(?:Seccomp|NoNewPrivs):\t(\d)", status, re.MULTILINE) == ["1", "2"]


@pytest.mark.tool(PROGRAM)
def test_calls(monitor: tuple[Path, subprocess.Popen[bytes]]) -> None:
    path, child = monitor
    assert qmpsocket.query_status(path, clock=CLOCK, timeout=PATIENCE) == "prelaunch"
    _, status = ask(path, "query-name", "query-status")
    assert isinstance(status, dict)
    assert status["status"] == "prelaunch"
    said = qmpsocket.monitor(path, "info status", timeout=PATIENCE, clock=CLOCK)
    assert "prelaunch" in said
    with pytest.raises(MachineError, match="refused no-such-command"):
        ask(path, "no-such-command")
    ask(path, "quit")
    assert child.wait(PATIENCE) == 0


@pytest.mark.tool(PROGRAM)
def test_a_qemu_that_hangs_is_a_timeout(monitor: tuple[Path, subprocess.Popen[bytes]]) -> None:
    path, child = monitor
    child.send_signal(signal.SIGSTOP)
    with pytest.raises(MachineError, match=r"no answer within 0\.2 s"):
        qmpsocket.query_status(path, timeout=0.2, clock=CLOCK)
