"""Calls to QEMU over its QMP socket, each with a deadline for the whole of it.

QEMU serves one client at a time, so each call connects, does its work and leaves; a second caller
waits its turn within its own deadline. Invariant: no read waits longer than the deadline, however
the bytes drip, and no line is kept beyond ``qmp.MAX_LINE``.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from machineos.errors import MachineError
from machineos.host.virt import qmp

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from machineos.core.clock import Clock

_PIECE = 1 << 16
_PAUSE = 0.01


def execute(
    path: Path, requests: Sequence[qmp.Request], *, timeout: float, clock: Clock
) -> list[Any]:
    """Send ``requests`` in one connection and return their answers.

    Raises: MachineError when QEMU has not answered all within ``timeout`` seconds, or refuses one.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            lines = _Lines(connection, clock, clock.monotonic() + timeout)
            lines.connect(path)
            qmp.require_greeting(lines.next())
            _ask(lines, qmp.NEGOTIATE)
            return [_ask(lines, request) for request in requests]
    except TimeoutError as error:
        raise MachineError(f"{path}: QEMU gave no answer within {timeout:g} s") from error
    except OSError as error:
        raise MachineError(f"{path}: no connection to QEMU: {error}") from error


def query_status(path: Path, *, clock: Clock, timeout: float = qmp.PATIENCE) -> str:
    """Return QEMU's run state: running, paused, prelaunch, shutdown ... Raises: MachineError."""
    (answer,) = execute(path, [qmp.Request("query-status")], timeout=timeout, clock=clock)
    return str(answer["status"])


def monitor(path: Path, line: str, *, timeout: float, clock: Clock) -> str:
    """Run one command of the human monitor and return what it printed. Raises: MachineError."""
    request = qmp.Request("human-monitor-command", {"command-line": line})
    (answer,) = execute(path, [request], timeout=timeout, clock=clock)
    return str(answer).strip()


class _Lines:
    """The lines of one connection, until a deadline."""

    def __init__(self, connection: socket.socket, clock: Clock, deadline: float) -> None:
        self._connection = connection
        self._clock = clock
        self._deadline = deadline
        self._held = b""

    def left(self) -> float:
        """Return the seconds left. Raises: TimeoutError when there are none."""
        left = self._deadline - self._clock.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def connect(self, path: Path) -> None:
        """Connect, also where others wait already. Raises: TimeoutError, OSError."""
        while True:
            self._connection.settimeout(self.left())
            try:
                self._connection.connect(str(path))
            except BlockingIOError:  # the queue of those who wait is full
                self._clock.sleep(_PAUSE)
            else:
                return

    def send(self, data: bytes) -> None:
        """Send ``data``. Raises: TimeoutError, OSError."""
        self._connection.settimeout(self.left())
        self._connection.sendall(data)

    def next(self) -> bytes:
        """Return the next line. Raises: TimeoutError, OSError at the end, MachineError."""
        while b"\n" not in self._held:
            if len(self._held) > qmp.MAX_LINE:
                raise MachineError(f"QEMU sent a line of more than {qmp.MAX_LINE} bytes")
            self._connection.settimeout(self.left())
            piece = self._connection.recv(_PIECE)
            if not piece:
                raise ConnectionResetError("it has ended")
            self._held += piece
        line, _, self._held = self._held.partition(b"\n")
        return line


def _ask(lines: _Lines, request: qmp.Request) -> Any:  # noqa: ANN401 (each answer has its own shape)
    lines.send(request.to_bytes())
    while True:
        answer = qmp.parse_answer(lines.next(), request)
        if answer is not None:
            return answer.value
