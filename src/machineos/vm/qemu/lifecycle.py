"""Start and stop: QEMU and swtpm of one machine, without a daemon.

Invariant: the intent is in ``run.json`` before anything is started or told to end, so whoever looks
next can tell a machine that runs from one whose start or stop was cut off. The caller holds the
machine's lock; processes are signalled only by pid and start time, never by a bare pid. What may
follow what is decided in ``moves``.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

import msgspec

from machineos.core import run
from machineos.errors import MachineError, MachineOSError
from machineos.host.virt import qmp, qmpsocket, swtpm, tools
from machineos.vm.qemu import moves
from machineos.vm.qemu.disks import place_disks
from machineos.vm.qemu.look import look, read_record, said_last, write_record
from machineos.vm.qemu.placement import localize
from machineos.vm.qemu.plan import plan_qemu
from machineos.vm.qemu.process import (
    boot_id,
    from_pid_file,
    is_alive,
    myself,
    process_of,
    send,
    wait,
)
from machineos.vm.qemu.uefi import place_firmware

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from machineos.core.clock import Clock
    from machineos.vm.model import Machine
    from machineos.vm.paths import MachinePaths
    from machineos.vm.provider import HowStopped, StartOptions
    from machineos.vm.qemu.record import Process, Record, Seen

# While a process lives it may still get there; these end what hangs, however busy the host is.
START_TIMEOUT = 600.0
_GRACE = 3.0  # for the TPM to end by itself; it loses nothing when it is told to
_POLL = 0.02
_READY = {"running", "prelaunch", "paused"}


def place(machine: Machine, paths: MachinePaths) -> None:
    """Make what is missing on the disk: folders, firmware, disks, TPM.

    Raises: MachineError, MissingError, ToolError, DocumentError.
    """
    _make_folders(paths)
    place_firmware(machine.config, paths)
    place_disks(machine, paths)
    if machine.config.tpm:
        tools.set_up_tpm(paths.tpm, paths.swtpm_log)


def start(
    machine: Machine,
    paths: MachinePaths,
    clock: Clock,
    *,
    accelerator: str,
    options: StartOptions,
    timeout: float = START_TIMEOUT,
) -> None:
    """Start a machine that may be started, and return when QEMU runs it.

    When this is interrupted or fails, neither QEMU nor swtpm is left behind.
    Raises: MachineError, ToolError, MissingError, DocumentError.
    """
    record = moves.begin(boot_id(), myself(), accelerator)
    _make_folders(paths)
    with _placing(paths, record):
        place(machine, paths)
    machine = localize(machine, paths)
    argv = plan_qemu(machine, paths, accelerator, options)
    _Launch(machine, paths, clock, record, timeout).run(argv)


def stop(
    paths: MachinePaths, clock: Clock, *, timeout: float, firm: float = moves.FIRM
) -> HowStopped:
    """Stop a machine, firmly when the guest does not end within ``timeout`` seconds (0: at once),
    and with a kill when QEMU does not within ``firm``.

    Raises: DocumentError.
    """
    seen = look(paths, clock)
    if seen.qemu is None:
        _end_tpm(seen, paths, clock)
        settled = moves.acknowledge(seen, boot_id(), myself())
        if settled is not None:
            write_record(paths.record, settled)
        return "not running"
    intent = _write_intent(paths, seen)
    how = _stop_qemu(paths, seen.qemu, clock, moves.pushes(timeout, firm))
    _end(paths, seen, clock, intent, moves.stop_reason(how))
    return how


def pull_plug(paths: MachinePaths, clock: Clock) -> None:
    """End a machine as a power cut would. Raises: DocumentError."""
    seen = look(paths, clock)
    intent = _write_intent(paths, seen)
    if seen.qemu is not None:
        _kill(seen.qemu, clock)
    _end(paths, seen, clock, intent, "the plug was pulled")


def _end(paths: MachinePaths, seen: Seen, clock: Clock, intent: Record, reason: str) -> None:
    _end_tpm(seen, paths, clock)
    write_record(paths.record, moves.advance(intent, "ended", reason=reason))
    _remove_sockets(paths)


def _write_intent(paths: MachinePaths, seen: Seen) -> Record:
    record = moves.halt(seen, boot_id(), myself())
    write_record(paths.record, record)
    return record


class _Launch:
    """One start. Whatever ends it early also ends the processes it had started."""

    def __init__(
        self, machine: Machine, paths: MachinePaths, clock: Clock, record: Record, timeout: float
    ) -> None:
        self._machine = machine
        self._paths = paths
        self._clock = clock
        self._deadline = clock.monotonic() + timeout
        self._record = record

    def run(self, argv: list[str]) -> None:
        paths = self._paths
        _remove_sockets(paths)
        _rotate(paths)
        self._write(self._record)
        try:
            with _event_log(paths), paths.qemu_log.open("wb") as log:
                if self._machine.config.tpm:
                    self._start_tpm(log)
                self._start_qemu(argv, log)
        except BaseException as error:
            self._undo(error)
            raise
        self._write(moves.advance(self._record, "ready"))

    def _start_tpm(self, log: IO[bytes]) -> None:
        paths = self._paths
        argv = swtpm.argv_socket(paths.tpm, paths.tpm_control, paths.swtpm_log, paths.swtpm_pid)
        with _uninterrupted():
            self._write(msgspec.structs.replace(self._record, swtpm=_spawn(argv, log)))
        while not paths.tpm_control.exists():
            self._wait(self._record.swtpm, "the TPM (swtpm)", paths.swtpm_log)

    def _start_qemu(self, argv: list[str], log: IO[bytes]) -> None:
        paths = self._paths
        with _uninterrupted():
            self._write(msgspec.structs.replace(self._record, qemu=_spawn(argv, log)))
        while not paths.qmp.exists():
            self._wait(self._record.qemu, "QEMU", paths.qemu_log)
        while self._asked() not in _READY:
            self._wait(self._record.qemu, "QEMU", paths.qemu_log)

    def _asked(self) -> str:
        try:
            return qmpsocket.query_status(self._paths.qmp, timeout=self._left(), clock=self._clock)
        except MachineError:
            return ""

    def _wait(self, process: Process | None, what: str, log: Path) -> None:
        name = self._machine.name
        if not is_alive(process):
            words = said_last(log) or "no reason"
            raise MachineError(f"machine {name}: {what} ended at its start: {words}")
        if self._left() <= 0:
            raise MachineError(f"machine {name}: {what} was not ready in time")
        self._clock.sleep(_POLL)

    def _left(self) -> float:
        return self._deadline - self._clock.monotonic()

    def _write(self, record: Record) -> None:
        self._record = record
        write_record(self._paths.record, record)

    def _undo(self, error: BaseException) -> None:
        for process in (self._record.qemu, self._record.swtpm):
            if process is not None:
                _kill(process, self._clock)
        _remove_sockets(self._paths)
        if isinstance(error, MachineOSError):
            self._write(moves.advance(self._record, "refused", reason=error.message))
        else:
            reason = "its start was interrupted"
            self._write(moves.advance(self._record, "interrupted", reason=reason))


def _spawn(argv: list[str], log: IO[bytes]) -> Process:
    child = run.spawn(argv, log=log, detach=True)
    # Reaped as long as we live, by init afterwards; a zombie counts as dead in any case.
    threading.Thread(target=child.wait, daemon=True, name=f"reap-{child.pid}").start()
    return process_of(child.pid)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl-C come when the block is over: whatever was started in it is known then."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield  # nothing interrupts us here
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


@contextmanager
def _placing(paths: MachinePaths, record: Record) -> Iterator[None]:
    """Record a start that fails before anything runs."""
    before = read_record(paths.record)
    write_record(paths.record, record)
    try:
        yield
    except BaseException:
        if before is None:
            paths.record.unlink(missing_ok=True)
        else:
            write_record(paths.record, before)
        raise


@contextmanager
def _event_log(paths: MachinePaths) -> Iterator[None]:
    """Hold the FIFO open until QEMU has it: what is written before would be lost otherwise."""
    fifo = paths.events.with_suffix(".in")
    fifo.unlink(missing_ok=True)
    os.mkfifo(fifo, 0o600)
    paths.event_log.write_bytes(b"")
    descriptor = os.open(fifo, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.write(descriptor, qmp.NEGOTIATE.to_bytes())
        yield
    finally:
        os.close(descriptor)


def _stop_qemu(
    paths: MachinePaths, process: Process, clock: Clock, pushes: Sequence[moves.Push]
) -> HowStopped:
    how: HowStopped = "powered off"
    for push in pushes:
        if not is_alive(process):
            return how
        how = push.outcome
        if push.request is None:
            send(process, signal.SIGKILL)
        elif not _tell(paths, push.request, push.answer_within, clock):
            continue
        if wait(process, push.patience, clock):
            return how
    return how


def _tell(paths: MachinePaths, request: qmp.Request, timeout: float, clock: Clock) -> bool:
    try:
        qmpsocket.execute(paths.qmp, [request], timeout=timeout, clock=clock)
    except MachineError:
        return False
    return True


def _kill(process: Process, clock: Clock) -> None:
    send(process, signal.SIGKILL)
    wait(process, moves.FIRM, clock)


def _end_tpm(seen: Seen, paths: MachinePaths, clock: Clock) -> None:
    process = seen.swtpm or from_pid_file(paths.swtpm_pid)
    if process is None or wait(process, _GRACE, clock):
        return
    send(process, signal.SIGTERM)
    if not wait(process, moves.FIRM, clock):
        _kill(process, clock)


def _make_folders(paths: MachinePaths) -> None:
    for folder in (paths.state, paths.sockets):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _no_folder(folder, paths, error) from error
        if folder.stat().st_uid != os.getuid():
            raise MachineError(f"{folder} belongs to another user")


def _no_folder(folder: Path, paths: MachinePaths, error: OSError) -> MachineError:
    """Return the error for a folder that cannot be made; that of sockets is not where the user put
    his machines when those have a long path, and without a session there may be no such place."""
    hint = ""
    if folder == paths.sockets and paths.state not in folder.parents:
        hint = "a path of sockets has to be short: set XDG_RUNTIME_DIR to a folder that is yours"
    return MachineError(f"{folder} cannot be made: {error.strerror}", hint=hint)


def _remove_sockets(paths: MachinePaths) -> None:
    for socket in (paths.qmp, paths.console, paths.tpm_control, paths.vnc):
        socket.unlink(missing_ok=True)


def _rotate(paths: MachinePaths) -> None:
    """Keep the logs of the run before as ``.old``; a guest's console is worth a look after."""
    for log in (paths.console_log, paths.qemu_log, paths.swtpm_log):
        if log.exists():
            log.replace(log.with_name(f"{log.name}.old"))
    for pid in (paths.qemu_pid, paths.swtpm_pid):
        pid.unlink(missing_ok=True)
