"""Looks at a machine: its record, its processes, its logs, and QEMU itself when asked to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from machineos.core.files import read_bounded, write_atomic
from machineos.core.jsondoc import decode_json
from machineos.errors import MachineError, MissingError
from machineos.host.virt import qmp, qmpsocket
from machineos.host.virt.qemu import last_words
from machineos.vm.qemu.process import boot_id, from_pid_file, is_alive
from machineos.vm.qemu.record import (
    NEVER_STARTED,
    Facts,
    Record,
    Seen,
    adopt,
    derive,
    with_unrecorded,
)

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.core.clock import Clock
    from machineos.vm.paths import MachinePaths

_LOG_LIMIT = 64 << 10
_ASK_TIMEOUT = 10.0  # a QEMU that hangs is not waited for as long as elsewhere: people look here


def look(paths: MachinePaths, clock: Clock, *, ask: bool = False) -> Seen:
    """Return what the machine is doing; with ``ask`` QEMU itself is asked too, which shows a guest
    that QEMU has halted. Raises: DocumentError."""
    boot = boot_id()
    record = read_record(paths.record)
    if record is None or record.boot != boot:
        qemu, swtpm = from_pid_file(paths.qemu_pid), from_pid_file(paths.swtpm_pid)
        record = adopt(record, boot, qemu=qemu, swtpm=swtpm)
    elif record.phase == "starting":
        qemu, swtpm = from_pid_file(paths.qemu_pid), from_pid_file(paths.swtpm_pid)
        record = with_unrecorded(record, qemu=qemu, swtpm=swtpm)
    return NEVER_STARTED if record is None else derive(record, _facts(record, paths, clock, ask))


def read_record(path: Path) -> Record | None:
    """Return the record, None if the machine was never started. Raises: DocumentError."""
    try:
        return decode_json(read_bounded(path, _LOG_LIMIT), Record, name=str(path))
    except MissingError:
        return None


def write_record(path: Path, record: Record) -> None:
    """Replace the record, whole or not at all."""
    write_atomic(path, msgspec.json.encode(record), mode=0o600)


def said_last(log: Path) -> str:
    """Return the last words in a log of QEMU or swtpm."""
    return last_words(_tail(log))


def _facts(record: Record, paths: MachinePaths, clock: Clock, ask: bool) -> Facts:
    swtpm = is_alive(record.swtpm)  # first: see ``Facts``
    qemu = is_alive(record.qemu)
    return Facts(
        actor=is_alive(record.actor),
        qemu=qemu,
        swtpm=swtpm,
        shutdown=qmp.parse_events(_tail(paths.event_log)),
        last_words=said_last(paths.qemu_log),
        run_state=_ask(paths, clock) if ask and qemu and record.phase == "running" else "",
    )


def _ask(paths: MachinePaths, clock: Clock) -> str:
    try:
        return qmpsocket.query_status(paths.qmp, timeout=_ASK_TIMEOUT, clock=clock)
    except MachineError:
        return "QEMU does not answer"


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _LOG_LIMIT))
            return file.read(_LOG_LIMIT)
    except FileNotFoundError:
        return b""
