"""A person, or a pipe, at the serial port of a machine.

Two file descriptors are coupled with QEMU's console socket; Ctrl-] leaves. A terminal is put into
raw mode meanwhile and always restored.
"""

from __future__ import annotations

import os
import select
import socket
import termios
import tty
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from machineos.errors import ConflictError, MachineError
from machineos.host.virt import qmp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from machineos.vm.store import MachinePaths

ESCAPE = b"\x1d"
_QUIET = 1.0
_CHUNK = 1 << 16

Left = Literal["escape", "closed", "input ended"]


def attach(paths: MachinePaths, *, source: int, sink: int) -> Left:
    """Couple ``source`` and ``sink`` with the console until Ctrl-], the machine's end, or, when the
    input is no terminal and has ended, until the guest has been quiet for a second.

    Returns which of the three it was. Raises: ConflictError when somebody else has the console,
    MachineError.
    """
    if _is_taken(paths):
        raise ConflictError("the console is in use by another process")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(str(paths.console))
        except OSError as error:
            raise MachineError(
                f"{paths.console}: no console: {error}", hint="is serial true in machine.yaml?"
            ) from error
        with _raw(source):
            return _couple(connection, source, sink)


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


def _is_taken(paths: MachinePaths) -> bool:
    """QEMU talks to one client; a second would wait without a word."""
    (devices,) = qmp.execute(paths.qmp, [qmp.Command("query-chardev")], timeout=qmp.PATIENCE)
    for device in devices:
        if device["label"] == "console":
            return not str(device["filename"]).startswith("disconnected:")
    raise MachineError("the machine has no serial console", hint="set serial to true")
