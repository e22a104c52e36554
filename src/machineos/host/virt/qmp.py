"""QEMU's machine protocol (QMP) as plain calls with a deadline.

QEMU serves one QMP client at a time, so each call connects, does its work and leaves; a second
caller waits its turn within its own deadline. Also reads the event log that QEMU writes to a file
(see ``vm/plan.py``), which tells an orderly end from a crash after QEMU has gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qemu.qmp import ConnectError, ExecuteError, QMPClient, QMPError

from machineos.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_MAX_LINE = 1 << 20
NEGOTIATE = b'{"execute":"qmp_capabilities"}\n'
# QEMU answers within milliseconds, on a busy host within seconds; only one that hangs reaches this.
PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Command:
    """One QMP command."""

    name: str
    arguments: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Why QEMU ended: ``reason`` is one of QEMU's ShutdownCause names."""

    guest: bool
    reason: str


def execute(socket: Path, commands: Sequence[Command], *, timeout: float) -> list[Any]:
    """Run ``commands`` in one connection and return their answers.

    Raises: MachineError when QEMU does not answer within ``timeout`` seconds or refuses a command.
    """
    try:
        return asyncio.run(asyncio.wait_for(_session(socket, commands), timeout))
    except TimeoutError as error:
        raise MachineError(f"{socket}: QEMU gave no answer within {timeout:g} s") from error
    except ExecuteError as error:
        raise MachineError(f"QEMU refused {error.sent.get('execute')}: {error}") from error
    except (ConnectError, QMPError, OSError, EOFError) as error:
        raise MachineError(f"{socket}: no connection to QEMU: {error}") from error


def query_status(socket: Path, *, timeout: float = PATIENCE) -> str:
    """Return QEMU's run state: running, paused, prelaunch, shutdown ... Raises: MachineError."""
    (answer,) = execute(socket, [Command("query-status")], timeout=timeout)
    return str(answer["status"])


def monitor(socket: Path, line: str, *, timeout: float) -> str:
    """Run one command of the human monitor and return what it printed. Raises: MachineError."""
    command = Command("human-monitor-command", {"command-line": line})
    (answer,) = execute(socket, [command], timeout=timeout)
    return str(answer).strip()


def parse_events(data: bytes) -> Shutdown | None:
    """Return the last SHUTDOWN in an event log, None if there is none.

    A last line that was cut off and lines that are not events are passed over: the log is written
    by a process that may be killed at any byte.
    """
    last: Shutdown | None = None
    for line in data.splitlines():
        if b'"SHUTDOWN"' not in line or len(line) > _MAX_LINE:
            continue
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and event.get("event") == "SHUTDOWN":
            detail = event.get("data")
            if isinstance(detail, dict):
                last = Shutdown(bool(detail.get("guest")), str(detail.get("reason", "unknown")))
    return last


async def _session(socket: Path, commands: Sequence[Command]) -> list[Any]:
    client = QMPClient("machine")
    client.logger = _quiet()  # the library reports what we raise anyway
    try:
        await client.connect(str(socket))
        return [await client.execute(item.name, dict(item.arguments)) for item in commands]
    finally:
        await _leave(client)


async def _leave(client: QMPClient) -> None:
    # QEMU closes the connection first when it was told to quit.
    with contextlib.suppress(QMPError, OSError, EOFError):
        await client.disconnect()


def _quiet() -> logging.Logger:
    logger = logging.Logger("machineos.qmp")  # not registered: no global state
    logger.addHandler(logging.NullHandler())
    return logger
