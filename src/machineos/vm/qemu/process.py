"""Processes that outlive the command that started them: looked at, signalled, waited for.

A signal goes through a pidfd that was opened before the start time was compared, so it cannot hit a
stranger that got the number.
"""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.errors import MissingError
from machineos.vm.qemu.record import Process, parse_stat

if TYPE_CHECKING:
    from machineos.core.clock import Clock

_PROC = Path("/proc")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def process_of(pid: int) -> Process:
    """Return the process that has ``pid`` now. Raises: MissingError."""
    found = _stat(pid)
    if found is None:
        raise MissingError(f"there is no process {pid}")
    return Process(pid, found[1])


def myself() -> Process:
    """Return the process that runs this."""
    return process_of(os.getpid())


def is_alive(process: Process | None) -> bool:
    """Whether this very process still runs; one that only waits to be reaped does not."""
    found = _stat(process.pid) if process is not None else None
    return (
        process is not None
        and found is not None
        and found[0] not in "ZX"
        and found[1] == process.start
    )


def send(process: Process, number: signal.Signals) -> None:
    """Send a signal to this very process, if it still runs."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        if is_alive(process):
            signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(handle)


def wait(process: Process, timeout: float, clock: Clock) -> bool:
    """Wait at most ``timeout`` seconds for the end; return whether it came."""
    deadline = clock.monotonic() + timeout
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        while is_alive(process):
            left = deadline - clock.monotonic()
            if left <= 0:
                return False
            poll = select.poll()
            poll.register(handle, select.POLLIN)
            poll.poll(min(left, 1.0) * 1000)
        return True
    finally:
        os.close(handle)


def from_pid_file(path: Path) -> Process | None:
    """Return the process that wrote the pid file ``path`` and still runs, None if there is none.

    The file is believed only when the path of the file itself is in the process's arguments.
    """
    try:
        pid = int(path.read_text("ascii", "replace")[:20].strip())
        process = process_of(pid)
        arguments = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError, MissingError):
        return None
    name = os.fsencode(path)
    known = any(argument in {name, b"file=" + name} for argument in arguments)
    return process if known and is_alive(process) else None


def boot_id() -> str:
    """Return what tells this boot of the host from all others."""
    return _BOOT_ID.read_text("ascii").strip()


def _stat(pid: int) -> tuple[str, int] | None:
    try:
        return parse_stat((_PROC / str(pid) / "stat").read_text("utf-8", "replace"))
    except (OSError, ValueError):
        return None
