"""What a machine is doing, derived each time from facts: no daemon remembers it.

``run.json`` says what was last intended and which processes were started for it; ``facts`` looks
which of them live and what QEMU logged; ``derive`` is the pure decision. Status values are the
predecessor's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import msgspec

from machineos.core.files import read_bounded, write_atomic
from machineos.core.jsondoc import decode_json
from machineos.errors import MachineError, MissingError
from machineos.host.virt import qmp
from machineos.host.virt.qemu import last_words
from machineos.vm.process import Process, from_pid_file

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.vm.store import MachinePaths

Phase = Literal["starting", "running", "stopping", "stopped", "failed"]
Status = Literal["initialized", "stopped", "starting", "running", "stopping", "failed"]
_LOG_LIMIT = 64 << 10
_NOBODY = Process(0, 0)
_ASK_TIMEOUT = 10.0  # a QEMU that hangs is not waited for as long as elsewhere: people look here
_HALTED = {"io-error", "internal-error", "guest-panicked", "shutdown", "watchdog"}
_ENDS = {
    "guest-shutdown": "the guest powered off",
    "guest-reset": "the guest rebooted, which ends this run",
    "host-qmp-quit": "QEMU was told to quit",
    "host-signal": "QEMU was ended by a signal",
}
_BAD_ENDS = {"host-error", "guest-panic", "none"}


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
    """What the host shows about the processes of a record."""

    actor: bool
    qemu: bool
    swtpm: bool
    shutdown: qmp.Shutdown | None
    last_words: str
    run_state: str = ""  # QEMU's own word; empty if it was not asked


@dataclass(frozen=True, slots=True)
class State:
    """The answer: a status, why (for failed and stopped), and the processes that live."""

    status: Status
    reason: str = ""
    qemu: Process | None = None
    swtpm: Process | None = None
    accelerator: str = ""

    @property
    def active(self) -> bool:
        """Whether a QEMU of this machine lives."""
        return self.qemu is not None


def read_state(paths: MachinePaths, boot: str, *, ask: bool = False) -> State:
    """Return what the machine is doing. ``boot`` is the host's boot id; with ``ask`` QEMU itself
    is asked too, which shows a guest that QEMU has halted. Raises: DocumentError."""
    record = read_record(paths.record)
    if record is None or record.boot != boot:
        record = _adopt(paths, boot, record)
    if record is None:
        return State("initialized")
    if record.phase == "starting":
        record = _with_unrecorded(record, paths)
    return derive(record, facts(record, paths, ask=ask))


def derive(record: Record, found: Facts) -> State:
    """Decide the status. Pure."""

    def state(status: Status, reason: str = "") -> State:
        return State(
            status,
            reason,
            record.qemu if found.qemu else None,
            record.swtpm if found.swtpm else None,
            record.accelerator,
        )

    if record.phase == "stopped" and not found.qemu:
        return state("stopped", record.reason)
    if record.phase == "failed" and not found.qemu:
        return state("failed", record.reason)
    if record.phase == "starting":
        if found.actor:
            return state("starting")
        if not found.qemu:
            return state("failed", "its start was interrupted")
    if not found.qemu:
        return _ended(found, state("stopped"))
    if record.swtpm is not None and not found.swtpm:
        return state("failed", "its TPM (swtpm) has died; the guest goes on without one")
    if record.phase == "stopping" and found.actor:
        return state("stopping")
    if record.phase == "starting":
        return state("failed", "its start was interrupted; QEMU still runs")
    if found.run_state in _HALTED:
        return state("failed", f"QEMU has halted the guest: {found.run_state}")
    return state("running", found.run_state if found.run_state != "running" else "")


def facts(record: Record, paths: MachinePaths, *, ask: bool) -> Facts:
    """Look at the host."""
    qemu = record.qemu is not None and record.qemu.alive
    return Facts(
        actor=record.actor.alive,
        qemu=qemu,
        swtpm=record.swtpm is not None and record.swtpm.alive,
        shutdown=qmp.parse_events(_tail(paths.event_log)),
        last_words=last_words(_tail(paths.qemu_log)),
        run_state=_ask(paths) if ask and qemu and record.phase == "running" else "",
    )


def read_record(path: Path) -> Record | None:
    """Return the record, None if the machine was never started. Raises: DocumentError."""
    try:
        return decode_json(read_bounded(path, _LOG_LIMIT), Record, name=str(path))
    except MissingError:
        return None


def write_record(path: Path, record: Record) -> None:
    """Replace the record, whole or not at all."""
    write_atomic(path, msgspec.json.encode(record), mode=0o600)


def _with_unrecorded(record: Record, paths: MachinePaths) -> Record:
    """Who starts a machine may be killed between starting a process and saying so. The pid files
    are of this start: it has removed those of the one before."""
    return msgspec.structs.replace(
        record,
        qemu=record.qemu or from_pid_file(paths.qemu_pid),
        swtpm=record.swtpm or from_pid_file(paths.swtpm_pid),
    )


def _adopt(paths: MachinePaths, boot: str, record: Record | None) -> Record | None:
    """A QEMU without a valid record (lost, or from another boot of the host) is still ours if its
    own pid file says so."""
    qemu = from_pid_file(paths.qemu_pid)
    if qemu is not None:
        return Record("running", boot, qemu, qemu=qemu, swtpm=from_pid_file(paths.swtpm_pid))
    if record is None:
        return None
    if record.phase in {"stopped", "failed"}:
        return Record(record.phase, boot, _NOBODY, reason=record.reason)
    return Record("failed", boot, _NOBODY, reason="the host went down while it ran")


def _ask(paths: MachinePaths) -> str:
    try:
        return qmp.query_status(paths.qmp, timeout=_ASK_TIMEOUT)
    except MachineError:
        return "QEMU does not answer"


def _ended(found: Facts, state: State) -> State:
    end = found.shutdown
    if end is not None and end.reason not in _BAD_ENDS:
        words = _ENDS.get(end.reason, f"QEMU ended: {end.reason}")
        return replace(state, reason=words)
    reason = f"QEMU ended: {end.reason}" if end is not None else "QEMU has died"
    return replace(state, status="failed", reason=_join(reason, found.last_words))


def _join(reason: str, words: str) -> str:
    return f"{reason}: {words}" if words else f"{reason} without a word"


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _LOG_LIMIT))
            return file.read(_LOG_LIMIT)
    except FileNotFoundError:
        return b""
