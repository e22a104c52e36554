"""``run.json``, what was last intended with a machine, and what it means beside what is seen.

No daemon remembers a state: whoever asks looks at the record, at the processes that it names and at
what QEMU logged (``look``), and decides here. Nothing here touches the host. Invariant: a process
is known by pid *and* start time, since a pid is given out again after its process has ended.
Status values are the predecessor's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec

from machineos.vm.provider import State

if TYPE_CHECKING:
    from machineos.host.virt.qmp import Shutdown
    from machineos.vm.model import Status

Phase = Literal["starting", "running", "stopping", "stopped", "failed"]
_STARTTIME = 19  # field 22 of proc(5) stat, counted after the command's closing parenthesis
_HALTED = {"io-error", "internal-error", "guest-panicked", "shutdown", "watchdog"}
_ENDS = {
    "guest-shutdown": "the guest powered off",
    "guest-reset": "the guest rebooted, which ends this run",
    "host-qmp-quit": "QEMU was told to quit",
    "host-signal": "QEMU was ended by a signal",
}
_BAD_ENDS = {"host-error", "guest-panic", "none"}


class Process(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One process: ``start`` is its start time in clock ticks since the host booted."""

    pid: int
    start: int


NOBODY = Process(0, 0)


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The last intent. ``actor`` is the process that carries it out; ``boot`` the host's boot."""

    phase: Phase
    boot: str
    actor: Process
    accelerator: str = ""
    qemu: Process | None = None
    swtpm: Process | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the host shows about the processes of a record.

    ``swtpm`` is looked at before ``qemu`` and ``shutdown``: a TPM that was gone while QEMU still
    lived and had not said that it ends has died on its own.
    """

    actor: bool
    qemu: bool
    swtpm: bool
    shutdown: Shutdown | None
    last_words: str
    run_state: str = ""  # QEMU's own word; empty if it was not asked


@dataclass(frozen=True, slots=True)
class Seen:
    """The answer: a status, why, and the processes that live."""

    status: Status
    reason: str = ""
    qemu: Process | None = None
    swtpm: Process | None = None
    accelerator: str = ""

    @property
    def state(self) -> State:
        """The same as any provider says it."""
        pid = self.qemu.pid if self.qemu is not None else None
        return State(self.status, self.reason, pid, self.accelerator)


NEVER_STARTED = Seen("initialized")


def derive(record: Record, found: Facts) -> Seen:
    """Decide what a machine is doing."""
    status, reason = _alive(record, found) if found.qemu else _dead(record, found)
    return Seen(
        status,
        reason,
        record.qemu if found.qemu else None,
        record.swtpm if found.swtpm else None,
        record.accelerator,
    )


def adopt(
    record: Record | None, boot: str, *, qemu: Process | None, swtpm: Process | None
) -> Record | None:
    """Return a record of this boot of the host for a machine that has none, or one of another boot.

    ``qemu`` and ``swtpm`` are what the machine's own pid files lead to: they are still ours.
    """
    if qemu is not None:
        return Record("running", boot, qemu, qemu=qemu, swtpm=swtpm)
    if record is None:
        return None
    if record.phase in {"stopped", "failed"}:
        return Record(record.phase, boot, NOBODY, reason=record.reason)
    return Record("failed", boot, NOBODY, reason="the host went down while it ran")


def with_unrecorded(record: Record, *, qemu: Process | None, swtpm: Process | None) -> Record:
    """Return the record of a start with what its pid files lead to.

    Who starts a machine may be killed between starting a process and saying so. The pid files are
    of this start: it has removed those of the one before.
    """
    return msgspec.structs.replace(record, qemu=record.qemu or qemu, swtpm=record.swtpm or swtpm)


def parse_stat(text: str) -> tuple[str, int]:
    """Return state and start time of a /proc/PID/stat; the command in it may hold anything.

    Raises: ValueError.
    """
    _, parenthesis, rest = text.rpartition(")")
    fields = rest.split()
    if not parenthesis or len(fields) <= _STARTTIME:
        raise ValueError("not the stat of a process")
    return fields[0], int(fields[_STARTTIME])


def _dead(record: Record, found: Facts) -> tuple[Status, str]:
    match record.phase:
        case "stopped" | "failed":
            return record.phase, record.reason
        case "starting":
            return ("starting", "") if found.actor else ("failed", "its start was interrupted")
        case "running" | "stopping":
            return _ended(found)


def _alive(record: Record, found: Facts) -> tuple[Status, str]:
    if record.phase == "starting" and found.actor:
        return "starting", ""
    if found.shutdown is not None:
        return "stopping", _how(found.shutdown)  # QEMU lets its TPM go before it goes itself
    if record.swtpm is not None and not found.swtpm:
        return "failed", "its TPM (swtpm) has died; the guest goes on without one"
    if record.phase == "stopping" and found.actor:
        return "stopping", ""
    if record.phase == "starting":
        return "failed", "its start was interrupted; QEMU still runs"
    if found.run_state in _HALTED:
        return "failed", f"QEMU has halted the guest: {found.run_state}"
    return "running", "" if found.run_state == "running" else found.run_state


def _ended(found: Facts) -> tuple[Status, str]:
    end = found.shutdown
    if end is not None and end.reason not in _BAD_ENDS:
        return "stopped", _how(end)
    reason = _how(end) if end is not None else "QEMU has died"
    words = f": {found.last_words}" if found.last_words else " without a word"
    return "failed", reason + words


def _how(end: Shutdown) -> str:
    return _ENDS.get(end.reason, f"QEMU ended: {end.reason}")
