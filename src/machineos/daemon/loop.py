"""Waits for many things at once, in one thread: descriptors, programs, moments, signals.

Whoever waits hands in a function and gets called when it has come; each call is short, because
nothing else is heard meanwhile. A program is waited for by its descriptor (pidfd), so any number of
them run at a time. A signal becomes a byte on a socket of ours (signal.set_wakeup_fd) and is heard
between two calls, never in one: no step is cut in half.
"""

from __future__ import annotations

import heapq
import selectors
import signal
import socket
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

from machineos.core.run import Running
from machineos.errors import MachineOSError, ToolTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from _typeshed import FileDescriptorLike

    from machineos.core.clock import Clock
    from machineos.core.command import Command, Result

_MANY = 4096


class Moment:
    """A call that is to come, unless it is called off."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act: Callable[[], None] | None = act

    def call_off(self) -> None:
        """Let it not come, and let go of what it would have called."""
        self.act = None


class Loop:
    """What is waited for. One at a time may run in a process, in its main thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._selector = selectors.DefaultSelector()
        self._moments: list[tuple[float, int, Moment]] = []
        self._order = count()
        self._running: set[Running] = set()
        self._stopped = False

    def watch(self, file: FileDescriptorLike, act: Callable[[], None]) -> None:
        """Call ``act`` each time there is something to read from ``file``."""
        self._selector.register(file, selectors.EVENT_READ, act)

    def forget(self, file: FileDescriptorLike) -> None:
        """Stop watching ``file``."""
        self._selector.unregister(file)

    def after(self, seconds: float, act: Callable[[], None]) -> Moment:
        """Call ``act`` once, in ``seconds`` or soon after."""
        moment = Moment(act)
        when = self._clock.monotonic() + seconds
        heapq.heappush(self._moments, (when, next(self._order), moment))
        return moment

    def start(self, command: Command, done: Callable[[Result | MachineOSError], None]) -> None:
        """Start a program and call ``done`` with what it left, or with why it failed.

        At the end of its timeout it is killed, which is a failure too.
        """
        try:
            program = Running(command.argv)
        except MachineOSError as error:
            failed = error  # the name ends with this block
            self.after(0, lambda: done(failed))
            return

        def ended() -> None:
            limit.call_off()
            self._let_go(program)
            try:
                result = program.finish()
            except MachineOSError as error:
                done(error)
            else:
                done(result)

        def overdue() -> None:
            self._let_go(program)
            program.kill()
            done(ToolTimeoutError(f"{command.argv[0]}: no end after {command.timeout:g} s"))

        limit = self.after(command.timeout, overdue)
        self._running.add(program)
        self.watch(program, ended)

    def run(self) -> None:
        """Wait and call until ``stop``. Raises: what is raised by what is called."""
        self._stopped = False
        while not self._stopped:
            for key, _ in self._selector.select(self._pause()):
                if self._selector.get_map().get(key.fd) is key:  # not forgotten by one before it
                    key.data()
            self._call_due()

    def stop(self) -> None:
        """Make ``run`` return when the calls of this moment are over."""
        self._stopped = True

    def close(self) -> None:
        """End the programs that are still waited for, and wait for nothing more."""
        for program in tuple(self._running):
            self._let_go(program)
            program.kill()
        self._selector.close()

    @contextmanager
    def signals(self, numbers: Collection[int], act: Callable[[], None]) -> Iterator[None]:
        """In this block call ``act`` for each of these signals, which then do nothing else."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)

        def heard() -> None:
            if set(ours.recv(_MANY)) & set(numbers):
                act()

        before = {number: signal.signal(number, _heard_by_socket) for number in numbers}
        old = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        self.watch(ours, heard)
        try:
            yield
        finally:
            self.forget(ours)
            signal.set_wakeup_fd(old)
            for number, handler in before.items():
                signal.signal(number, handler)
            ours.close()
            theirs.close()

    def _let_go(self, program: Running) -> None:
        self._running.discard(program)
        self.forget(program)

    def _pause(self) -> float | None:
        """Return how long to wait for the next moment, None when there is none."""
        while self._moments and self._moments[0][2].act is None:
            heapq.heappop(self._moments)
        if not self._moments:
            return None
        return max(0.0, self._moments[0][0] - self._clock.monotonic())

    def _call_due(self) -> None:
        now = self._clock.monotonic()
        while self._moments and self._moments[0][0] <= now:
            _, _, moment = heapq.heappop(self._moments)
            if moment.act is not None:
                moment.act()


def _heard_by_socket(_number: int, _frame: object) -> None:
    """Do nothing: Python's own C handler has written the number to the socket."""
