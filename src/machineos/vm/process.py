"""Processes that outlive the command that started them, known by pid *and* start time.

A pid alone means nothing after its process has ended: the number is given out again. A signal goes
through a pidfd that was opened before the start time was compared, so it cannot hit a stranger.
"""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from machineos.errors import MissingError

if TYPE_CHECKING:
    from machineos.core.clock import Clock

_PROC = Path("/proc")
_STARTTIME = 19  # field 22 of proc(5) stat, counted after the command's closing parenthesis


class Process(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One process: ``start`` is its start time in clock ticks since the host booted."""

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> Self:
        """Return the process that has ``pid`` now. Raises: MissingError."""
        found = _stat(pid)
        if found is None:
            raise MissingError(f"there is no process {pid}")
        return cls(pid, found[1])

    @property
    def alive(self) -> bool:
        """Whether this very process still runs; one that only waits to be reaped does not."""
        found = _stat(self.pid)
        return found is not None and found[0] not in "ZX" and found[1] == self.start

    def send(self, number: signal.Signals) -> None:
        """Send a signal to this very process, if it still runs."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            if self.alive:
                signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(handle)

    def wait(self, timeout: float, clock: Clock) -> bool:
        """Wait at most ``timeout`` seconds for the end; return whether it came."""
        deadline = clock.monotonic() + timeout
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            while self.alive:
                left = deadline - clock.monotonic()
                if left <= 0:
                    return False
                poll = select.poll()
                poll.register(handle, select.POLLIN)
                poll.poll(min(left, 1.0) * 1000)
            return True
        finally:
            os.close(handle)


def parse_stat(text: str) -> tuple[str, int]:
    """Return state and start time of a /proc/PID/stat; the command in it may hold anything.

    Raises: ValueError.
    """
    _, parenthesis, rest = text.rpartition(")")
    fields = rest.split()
    if not parenthesis or len(fields) <= _STARTTIME:
        raise ValueError("not the stat of a process")
    return fields[0], int(fields[_STARTTIME])


def from_pid_file(path: Path) -> Process | None:
    """Return the process that wrote the pid file ``path`` and still runs, None if there is none.

    The file is believed only when the path of the file itself is in the process's arguments.
    """
    try:
        pid = int(path.read_text("ascii", "replace")[:20].strip())
        process = Process.of(pid)
        arguments = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError, MissingError):
        return None
    name = os.fsencode(path)
    known = any(argument in {name, b"file=" + name} for argument in arguments)
    return process if known and process.alive else None


def _stat(pid: int) -> tuple[str, int] | None:
    try:
        return parse_stat((_PROC / str(pid) / "stat").read_text("utf-8", "replace"))
    except (OSError, ValueError):
        return None
