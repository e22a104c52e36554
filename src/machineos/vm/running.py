"""A machine driven from Python: started in a ``with`` block, watched and typed to over its serial
port, gone at the block's end.

What the guest writes is kept by the provider whether somebody listens or not, so nothing is lost
between two waits. Runs on any provider.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Self

from machineos.errors import MachineError
from machineos.vm.provider import AS_DEFINED, STOP_TIMEOUT, StartOptions

if TYPE_CHECKING:
    from types import TracebackType

    from machineos.core.clock import Clock
    from machineos.vm.provider import Console, HowStopped, Provider, State

_POLL = 0.05
_TAIL = 2000


class RunningMachine:
    """One run of a machine. Entering starts it, leaving ends it, kept disks and TPM as they are."""

    def __init__(
        self,
        provider: Provider,
        name: str,
        clock: Clock,
        *,
        options: StartOptions = AS_DEFINED,
    ) -> None:
        self._provider = provider
        self._clock = clock
        self._options = options
        self._position = 0
        self._console: Console | None = None
        self.name = name
        self.notices: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        self.notices = self._provider.start(self.name, self._options).notices
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console is not None:
            self._console.close()
            self._console = None
        self._provider.stop(self.name, timeout=0)

    @property
    def console(self) -> Console:
        """Its serial port."""
        if self._console is None:
            self._console = self._provider.console(self.name)
        return self._console

    @property
    def state(self) -> State:
        """What the machine is doing now."""
        return self._provider.state(self.name, ask=False)

    @property
    def console_text(self) -> str:
        """All that the guest wrote to its serial port since the start (the first 64 MiB)."""
        return self.console.text()

    def wait_console(self, pattern: str, timeout: float) -> re.Match[str]:
        """Wait until the guest has written ``pattern`` (a regular expression, ``^`` and ``$`` at
        line ends), after what an earlier wait matched; return the match. The last line may be half
        of one: a pattern that wants all of it asks for its end.

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
            if not state.unended:
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
        self.console.send(text)

    def wait_exit(self, timeout: float) -> State:
        """Wait until the guest has powered off and return the machine's last state.

        Raises: MachineError when ``timeout`` seconds pass first, or the machine failed.
        """
        if not self._provider.wait(self.name, timeout):
            raise MachineError(
                f"machine {self.name} still runs after {timeout:g} s. "
                f"Its end:\n{self.console_text[-_TAIL:]}"
            )
        state = self.state
        if state.status == "failed":
            raise MachineError(f"machine {self.name} has failed: {state.reason}")
        return state

    def power_off(self, timeout: float = STOP_TIMEOUT) -> HowStopped:
        """Stop it gracefully, then firmly."""
        return self._provider.stop(self.name, timeout=timeout)

    def pull_plug(self) -> None:
        """End it as a power cut would: nothing is written back, it is killed at once."""
        self._provider.pull_plug(self.name)

    def save(self, tag: str) -> None:
        """Save the running guest as a snapshot. Raises: MachineError."""
        self._provider.save(self.name, tag)

    def load(self, tag: str) -> None:
        """Put the guest back to a snapshot. Raises: MachineError."""
        self._provider.load(self.name, tag)
        self._position = len(self.console_text)
