"""A machine driven from Python: started in a ``with`` block, watched and typed to over its serial
port, gone at the block's end.

What the guest writes is read from the console log, which QEMU writes whether somebody listens or
not, so nothing is lost between two waits and several readers do not disturb each other.
"""

from __future__ import annotations

import re
import socket
import threading
from typing import TYPE_CHECKING, Self

from machineos.errors import MachineError
from machineos.vm import lifecycle, snapshot
from machineos.vm.accel import boot_id
from machineos.vm.plan import StartOptions
from machineos.vm.state import State, read_state

if TYPE_CHECKING:
    from types import TracebackType

    from machineos.core.clock import Clock
    from machineos.vm.accel import Accelerator
    from machineos.vm.store import MachinePaths, MachineStore

_POLL = 0.05
_LOG_LIMIT = 64 << 20
_TAIL = 2000


class RunningMachine:
    """One run of a machine. Entering starts it, leaving ends it, kept disks and TPM as they are."""

    def __init__(
        self,
        store: MachineStore,
        name: str,
        clock: Clock,
        *,
        options: StartOptions = StartOptions(),  # noqa: B008 (frozen)
        accelerator: Accelerator | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._options = options
        self._accelerator = accelerator
        self._position = 0
        self._input: socket.socket | None = None
        self.name = name
        self.notices: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        started = lifecycle.start(
            self._store,
            self.name,
            self._clock,
            options=self._options,
            accelerator=self._accelerator,
        )
        self.notices = started.notices
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._input is not None:
            self._input.close()
            self._input = None
        lifecycle.stop(self._store, self.name, self._clock, force=True)

    @property
    def paths(self) -> MachinePaths:
        """The machine's files."""
        return self._store.paths(self.name)

    @property
    def state(self) -> State:
        """What the machine is doing now."""
        return read_state(self.paths, boot_id())

    @property
    def console_text(self) -> str:
        """All that the guest wrote to its serial port since the start (the first 64 MiB)."""
        try:
            with self.paths.console_log.open("rb") as file:
                return file.read(_LOG_LIMIT).decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def wait_console(self, pattern: str, timeout: float) -> re.Match[str]:
        """Wait until the guest has written ``pattern`` (a regular expression, ``^`` and ``$`` at
        line ends), after what an earlier wait matched; return the match.

        Raises: MachineError when the machine ends or ``timeout`` seconds pass first; the end of
        the console is in the message.
        """
        shape = re.compile(pattern, re.MULTILINE)
        deadline = self._clock.monotonic() + timeout
        while True:
            state = self.state
            text = self.console_text
            match = shape.search(text, self._position)
            if match is not None:
                self._position = match.end()
                return match
            if state.status != "running":
                why = f"the machine is {state.status} ({state.reason})"
            elif self._clock.monotonic() > deadline:
                why = f"{timeout:g} s have passed"
            else:
                self._clock.sleep(_POLL)
                continue
            raise MachineError(
                f"machine {self.name}: no {pattern!r} on the console, and {why}. "
                f"Its end:\n{text[-_TAIL:]}"
            )

    def send(self, text: str) -> None:
        """Type ``text`` on the serial port. Raises: MachineError."""
        if self._input is None:
            self._input = self._connect()
        try:
            self._input.sendall(text.encode())
        except OSError as error:
            raise MachineError(f"machine {self.name}: the console is gone: {error}") from error

    def wait_exit(self, timeout: float) -> State:
        """Wait until the guest has powered off and return the machine's last state.

        Raises: MachineError when ``timeout`` seconds pass first, or the machine failed.
        """
        process = self.state.qemu
        if process is not None and not process.wait(timeout, self._clock):
            raise MachineError(
                f"machine {self.name} still runs after {timeout:g} s. "
                f"Its end:\n{self.console_text[-_TAIL:]}"
            )
        state = self.state
        if state.status == "failed":
            raise MachineError(f"machine {self.name} has failed: {state.reason}")
        return state

    def power_off(self, timeout: float = lifecycle.STOP_TIMEOUT) -> lifecycle.HowStopped:
        """Stop it gracefully, then firmly."""
        return lifecycle.stop(self._store, self.name, self._clock, timeout=timeout)

    def pull_plug(self) -> None:
        """End it as a power cut would: nothing is written back, QEMU is killed at once."""
        lifecycle.pull_plug(self._store, self.name, self._clock)

    def save(self, tag: str) -> None:
        """Save the running guest as a snapshot. Raises: MachineError."""
        snapshot.save(self.paths, tag)

    def load(self, tag: str) -> None:
        """Put the guest back to a snapshot. Raises: MachineError."""
        snapshot.load(self.paths, tag)
        self._position = len(self.console_text)

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(self.paths.console))
        except OSError as error:
            connection.close()
            raise MachineError(f"machine {self.name}: no console: {error}") from error
        threading.Thread(target=_drain, args=(connection,), daemon=True).start()
        return connection


def _drain(connection: socket.socket) -> None:
    """A client that does not read would make the guest wait for its serial port."""
    try:
        while connection.recv(1 << 16):
            pass
    except OSError:
        return
