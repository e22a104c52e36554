"""QEMU's machine protocol (QMP): what is said and what was answered, as values.

One message is one line of JSON. A server says hello first; then every request gets one answer, and
events may stand between them (QEMU, "QEMU Machine Protocol Specification"). Also reads the event
log that QEMU writes to a file (``vm/qemu/plan.py``), which tells an orderly end from a crash after
QEMU has gone. Nothing here opens anything: ``qmpsocket`` does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from machineos.errors import MachineError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_LINE = 1 << 20
# QEMU answers within milliseconds, on a busy host within seconds; only one that hangs reaches this.
PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request; ``name`` is what QMP calls a command."""

    name: str
    arguments: Mapping[str, object] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return the line to send."""
        message: dict[str, object] = {"execute": self.name}
        if self.arguments:
            message["arguments"] = dict(self.arguments)
        return json.dumps(message, separators=(",", ":")).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request was answered."""

    value: Any


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Why QEMU ended: ``reason`` is one of QEMU's ShutdownCause names."""

    guest: bool
    reason: str


NEGOTIATE = Request("qmp_capabilities")


def require_greeting(line: bytes) -> None:
    """Check the first line of a server. Raises: MachineError when it is not QMP's."""
    if "QMP" not in _parse(line):
        raise MachineError(f"QEMU did not say hello, but {_shown(line)}")


def parse_answer(line: bytes, request: Request) -> Answer | None:
    """Return the answer to ``request`` that the line is, None when it is an event.

    Raises: MachineError when QEMU refused, or when the line is neither.
    """
    message = _parse(line)
    if "return" in message:
        return Answer(message["return"])
    error = message.get("error")
    if isinstance(error, dict):
        raise MachineError(f"QEMU refused {request.name}: {error.get('desc', 'no reason')!s}")
    if "event" in message:
        return None
    raise MachineError(f"QEMU answered {request.name} with {_shown(line)}")


def parse_events(data: bytes) -> Shutdown | None:
    """Return the last SHUTDOWN in an event log, None if there is none.

    A last line that was cut off and lines that are not events are passed over: the log is written
    by a process that may be killed at any byte.
    """
    last: Shutdown | None = None
    for line in data.splitlines():
        if b'"SHUTDOWN"' not in line or len(line) > MAX_LINE:
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


def _parse(line: bytes) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError as error:
        raise MachineError(f"QEMU does not speak JSON: {_shown(line)}") from error
    if not isinstance(message, dict):
        raise MachineError(f"QEMU does not speak QMP: {_shown(line)}")
    return message


def _shown(line: bytes) -> str:
    return repr(line[:80].decode("utf-8", "replace"))
