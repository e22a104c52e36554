"""A person, a pipe or a program at the serial port of a machine.

Two file descriptors are coupled with QEMU's console socket; Ctrl-] leaves. A terminal is put into
raw mode meanwhile and always restored. What the guest writes is read from the console log, which
QEMU writes whether somebody listens or not, so nothing is lost between two looks.
"""

from __future__ import annotations

import os
import select
import socket
import termios
import threading
import tty
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from machineos.errors import ConflictError, MachineError
from machineos.host.virt import qmp, qmpsocket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from machineos.core.clock import Clock
    from machineos.vm.paths import MachinePaths
    from machineos.vm.provider import Left

ESCAPE = b"\x1d"
_QUIET = 1.0
_CHUNK = 1 << 16
_LOG_LIMIT = 64 << 20


class QemuConsole:
    """The console of one machine (``machineos.vm.provider.Console``)."""

    def __init__(self, name: str, paths: MachinePaths, clock: Clock) -> None:
        self._name = name
        self._paths = paths
        self._clock = clock
        self._input: socket.socket | None = None

    @property
    def log(self) -> Path:
        """What QEMU keeps of all that the guest wrote."""
        return self._paths.console_log

    def text(self) -> str:
        """Return all that the guest wrote since its last start (the first 64 MiB)."""
        try:
            with self.log.open("rb") as file:
                return file.read(_LOG_LIMIT).decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def send(self, text: str) -> None:
        """Type ``text``. Raises: MachineError."""
        if self._input is None:
            self._input = self._connect()
            threading.Thread(target=_drain, args=(self._input,), daemon=True).start()
        try:
            self._input.sendall(text.encode())
        except OSError as error:
            raise MachineError(f"machine {self._name}: the console is gone: {error}") from error

    def attach(self, *, source: int, sink: int) -> Left:
        """Couple ``source`` and ``sink`` with the console until Ctrl-], the machine's end, or, when
        the input is no terminal and has ended, until the guest has been quiet for a second.

        Returns which of the three it was. Raises: ConflictError when somebody else has the console,
        MachineError.
        """
        if self._is_taken():
            raise ConflictError("the console is in use by another process")
        with self._connect() as connection, _raw(source):
            return _couple(connection, source, sink)

    def close(self) -> None:
        """Let go of the port."""
        if self._input is not None:
            with suppress(OSError):  # it may be gone; else somebody still reads from it
                self._input.shutdown(socket.SHUT_RDWR)
            self._input.close()
            self._input = None

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(self._paths.console))
        except OSError as error:
            connection.close()
            raise MachineError(
                f"machine {self._name}: no console: {error}",
                hint="is serial true in machine.yaml?",
            ) from error
        return connection

    def _is_taken(self) -> bool:
        """QEMU talks to one client; a second would wait without a word."""
        (devices,) = qmpsocket.execute(
            self._paths.qmp,
            [qmp.Request("query-chardev")],
            timeout=qmp.PATIENCE,
            clock=self._clock,
        )
        for device in devices:
            if device["label"] == "console":
                return not str(device["filename"]).startswith("disconnected:")
        raise MachineError("the machine has no serial console", hint="set serial to true")


def _couple(connection: socket.socket, source: int, sink: int) -> Left:
    inputs: list[socket.socket | int] = [connection, source]
    while True:
        timeout = None if source in inputs else _QUIET
        ready, _, _ = select.select(inputs, [], [], timeout)
        if not ready:
            return "input ended"
        if connection in ready:
            data = _receive(connection)
            if not data:
                return "closed"
            _write_all(sink, data)
        if source in ready:
            typed = os.read(source, _CHUNK)
            before, escape, _ = typed.partition(ESCAPE)
            try:
                connection.sendall(before)
            except OSError:
                return "closed"
            if escape:
                _leave(connection, sink)
                return "escape"
            if not typed:
                inputs.remove(source)


def _leave(connection: socket.socket, sink: int) -> None:
    """Let QEMU read all that was typed: closing while its answer is unread would drop the rest."""
    try:
        connection.shutdown(socket.SHUT_WR)
        connection.settimeout(_QUIET)
        while data := _receive(connection):
            _write_all(sink, data)
    except OSError:
        return  # it is gone, or quiet


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(_CHUNK)
    except ConnectionResetError:
        return b""


def _write_all(sink: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(sink, view) :]


def _drain(connection: socket.socket) -> None:
    """A client that does not read would make the guest wait for its serial port."""
    try:
        while connection.recv(_CHUNK):
            pass
    except OSError:
        return


@contextmanager
def _raw(source: int) -> Iterator[None]:
    if not os.isatty(source):
        yield
        return
    before = termios.tcgetattr(source)
    try:
        tty.setraw(source, termios.TCSADRAIN)  # what was typed ahead counts
        yield
    finally:
        termios.tcsetattr(source, termios.TCSADRAIN, before)
