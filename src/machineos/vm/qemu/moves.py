"""A machine's life as a table: which intent may follow which, and what is done to bring it about.

Nothing here touches the host: ``lifecycle`` writes each move down before it acts on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec

from machineos.errors import ConflictError, OrderError
from machineos.host.virt import qmp
from machineos.vm.qemu.record import Record

if TYPE_CHECKING:
    from machineos.vm.provider import HowStopped
    from machineos.vm.qemu.record import Phase, Process, Seen

Event = Literal["ready", "refused", "interrupted", "ended"]
FIRM = 30.0  # for QEMU to write back and end; for the kernel to end what was killed
# What may happen to a machine whose start or stop was written down, and its phase then. A start may
# begin where nothing runs (``require_startable``), a stop anywhere, also where one was cut off.
MOVES: dict[tuple[Phase, Event], Phase] = {
    ("starting", "ready"): "running",
    ("starting", "refused"): "failed",
    ("starting", "interrupted"): "stopped",
    ("stopping", "ended"): "stopped",
}


def advance(record: Record, event: Event, *, reason: str = "") -> Record:
    """Return the record after ``event``; when nothing runs any more it names no processes.

    Raises: OrderError (a defect of ours).
    """
    phase = MOVES.get((record.phase, event))
    if phase is None:
        raise OrderError(f"a machine that is {record.phase} cannot be {event}")
    if phase == "running":
        return msgspec.structs.replace(record, phase=phase, reason=reason)
    accelerator = "" if event == "ended" else record.accelerator
    return Record(phase, record.boot, record.actor, accelerator=accelerator, reason=reason)


def begin(boot: str, actor: Process, accelerator: str) -> Record:
    """Return the record of a start that ``actor`` is about to make."""
    return Record("starting", boot, actor, accelerator=accelerator)


def halt(seen: Seen, boot: str, actor: Process) -> Record:
    """Return the record of a stop that ``actor`` is about to make of what was seen."""
    return Record(
        "stopping", boot, actor, accelerator=seen.accelerator, qemu=seen.qemu, swtpm=seen.swtpm
    )


def acknowledge(seen: Seen, boot: str, actor: Process) -> Record | None:
    """Return the record of a machine that was told to stop and did not run: what had failed is
    stopped then. None when it was never started."""
    if seen.status == "initialized":
        return None
    return Record("stopped", boot, actor, reason=seen.reason)


def require_startable(name: str, seen: Seen) -> tuple[str, ...]:
    """Return what the user should be told at the start of a machine. Raises: ConflictError."""
    if seen.qemu is not None and seen.status == "failed":
        raise ConflictError(
            f"machine {name} is failed: {seen.reason}",
            hint=f"clear it with: machine stop {name} --force",
        )
    if seen.qemu is not None:
        raise ConflictError(f"machine {name} is {seen.status} already")
    if seen.status == "failed":
        return (f"the last run of {name} failed: {seen.reason}",)
    return ()


def require_deletable(name: str, seen: Seen) -> None:
    """Raises: ConflictError when something of the machine lives."""
    if seen.qemu is not None or seen.swtpm is not None:
        raise ConflictError(
            f"machine {name} is {seen.status}", hint=f"stop it with: machine stop {name}"
        )


@dataclass(frozen=True, slots=True)
class Push:
    """One try to end QEMU: ``request`` by QMP, or a kill; then ``patience`` seconds for its end."""

    request: qmp.Request | None
    answer_within: float
    patience: float
    outcome: HowStopped


def pushes(timeout: float, firm: float = FIRM) -> tuple[Push, ...]:
    """Return what to try one after the other, until QEMU has ended.

    The guest is asked first and has ``timeout`` seconds, unless that is 0; ``quit`` writes back
    what the guest flushed, and has ``firm`` seconds; a kill loses what QEMU holds.
    """
    asking = Push(qmp.Request("system_powerdown"), qmp.PATIENCE, timeout, "powered off")
    ending = Push(qmp.Request("quit"), firm, firm, "quit")
    killing = Push(None, 0.0, FIRM, "killed")
    return (asking, ending, killing) if timeout > 0 else (ending, killing)


def stop_reason(how: HowStopped) -> str:
    """Return what the record says of a machine that was stopped."""
    return "the guest powered off" if how == "powered off" else f"QEMU was stopped ({how})"
