"""Start and stop: QEMU and swtpm of one machine, without a daemon.

Invariant: the intent is in ``run.json`` before anything is started or told to end, so whoever looks
next can tell a machine that runs from one whose start or stop was cut off. Each step holds the
machine's lock; processes are signalled only through ``Process``, never by a bare pid.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Literal

import msgspec

from machineos.core import run
from machineos.errors import ConflictError, MachineError, MachineOSError
from machineos.host.virt import qemu, qmp, swtpm
from machineos.vm.accel import Accelerator, boot_id, find_accelerator
from machineos.vm.disks import localize, place_disks
from machineos.vm.plan import StartOptions, plan_qemu
from machineos.vm.ports import require_free
from machineos.vm.process import Process, from_pid_file
from machineos.vm.state import Record, State, read_record, read_state, write_record
from machineos.vm.uefi import place_firmware

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from machineos.core.clock import Clock
    from machineos.vm.model import Machine
    from machineos.vm.store import MachinePaths, MachineStore

# While a process lives it may still get there; these end what hangs, however busy the host is.
START_TIMEOUT = 600.0
STOP_TIMEOUT = 60.0
FIRM = 30.0  # for QEMU to write back and end; for the kernel to end what was killed
_GRACE = 3.0  # for the TPM to end by itself; it loses nothing when it is told to
_POLL = 0.02
_READY = {"running", "prelaunch", "paused"}

HowStopped = Literal["not running", "powered off", "quit", "killed"]


@dataclass(frozen=True, slots=True)
class Started:
    """A machine that was started: which accelerator, and what the user should be told."""

    machine: Machine
    paths: MachinePaths
    accelerator: Accelerator
    notices: tuple[str, ...] = ()


def state_of(store: MachineStore, name: str) -> State:
    """Return what a machine is doing. Raises: MissingError, DocumentError."""
    return read_state(store.require(name), boot_id(), ask=True)


def start(
    store: MachineStore,
    name: str,
    clock: Clock,
    *,
    options: StartOptions = StartOptions(),  # noqa: B008 (frozen)
    accelerator: Accelerator | None = None,
    timeout: float = START_TIMEOUT,
) -> Started:
    """Start a machine and return when QEMU runs it.

    When this is interrupted or fails, neither QEMU nor swtpm is left behind. ``accelerator`` is
    found by probing unless given.

    Raises: MissingError, ConflictError (it runs already, another command works on it, or a host
    port is taken), MachineError, ToolError, DocumentError.
    """
    machine = store.load(name)
    paths = store.paths(name)
    with store.lock(name):
        before = read_state(paths, boot_id())
        notices = _require_startable(machine, before)
        require_free(machine)
        chosen = accelerator or find_accelerator(store.cache)
        _make_folders(paths)
        with _placing(paths, chosen):
            place_firmware(machine.config, paths)
            place_disks(machine, paths)
            if machine.config.tpm:
                swtpm.setup(paths.tpm, paths.swtpm_log)
        machine = localize(machine, paths)
        argv = plan_qemu(machine, paths, chosen.kind, options)
        _Launch(machine, paths, chosen, clock, timeout).run(argv)
    if chosen.notice:
        notices = (*notices, chosen.notice)
    return Started(machine, paths, chosen, notices)


def stop(
    store: MachineStore,
    name: str,
    clock: Clock,
    *,
    force: bool = False,
    timeout: float = STOP_TIMEOUT,
    firm: float = FIRM,
) -> HowStopped:
    """Stop a machine and say how it ended.

    Without ``force`` the guest is asked to power off and has ``timeout`` seconds for it; then QEMU
    is told to quit, which writes back what the guest flushed; after ``firm`` seconds it is killed.
    Raises: MissingError, ConflictError, DocumentError.
    """
    paths = store.require(name)
    with store.lock(name):
        state = read_state(paths, boot_id())
        if state.qemu is None:
            _end_tpm(state, paths, clock)
            _settle(paths, state)
            return "not running"
        _write_intent(paths, state)
        how = _stop_qemu(paths, state.qemu, clock, timeout=0.0 if force else timeout, firm=firm)
        _end_tpm(state, paths, clock)
        write_record(paths.record, Record("stopped", boot_id(), _me(), reason=_words(how)))
        _remove_sockets(paths)
    return how


def pull_plug(store: MachineStore, name: str, clock: Clock) -> None:
    """End a machine as a power cut would. Raises: MissingError, ConflictError."""
    paths = store.require(name)
    with store.lock(name):
        state = read_state(paths, boot_id())
        if state.qemu is not None:
            _write_intent(paths, state)
            state.qemu.send(signal.SIGKILL)
            state.qemu.wait(FIRM, clock)
        _end_tpm(state, paths, clock)
        write_record(
            paths.record, Record("stopped", boot_id(), _me(), reason="the plug was pulled")
        )
        _remove_sockets(paths)


def delete(store: MachineStore, name: str) -> None:
    """Remove a machine with its disks, TPM and variables.

    Raises: MissingError, ConflictError when it runs.
    """
    paths = store.require(name)
    with store.lock(name):
        state = read_state(paths, boot_id())
        if state.qemu is not None or state.swtpm is not None:
            raise ConflictError(
                f"machine {name} is {state.status}", hint=f"stop it with: machine stop {name}"
            )
        store.remove(name)


def require_running(store: MachineStore, name: str) -> State:
    """Return the state of a machine that runs. Raises: MachineError that says why it does not."""
    state = state_of(store, name)
    if state.status != "running":
        why = f": {state.reason}" if state.reason else ""
        raise MachineError(
            f"machine {name} is {state.status}{why}", hint=f"start it with: machine start {name}"
        )
    return state


class _Launch:
    """One start. Whatever ends it early also ends the processes it had started."""

    def __init__(
        self,
        machine: Machine,
        paths: MachinePaths,
        accelerator: Accelerator,
        clock: Clock,
        timeout: float,
    ) -> None:
        self._machine = machine
        self._paths = paths
        self._clock = clock
        self._deadline = clock.monotonic() + timeout
        self._record = Record("starting", boot_id(), _me(), accelerator=accelerator.kind)

    def run(self, argv: list[str]) -> None:
        paths = self._paths
        _remove_sockets(paths)
        _rotate(paths)
        self._write()
        try:
            with _event_log(paths), paths.qemu_log.open("wb") as log:
                if self._machine.config.tpm:
                    self._start_tpm(log)
                self._start_qemu(argv, log)
        except BaseException as error:
            self._undo(error)
            raise
        self._write(phase="running")

    def _start_tpm(self, log: IO[bytes]) -> None:
        paths = self._paths
        argv = swtpm.argv_socket(paths.tpm, paths.tpm_control, paths.swtpm_log, paths.swtpm_pid)
        with _uninterrupted():
            self._write(swtpm=_spawn(argv, log))
        while not paths.tpm_control.exists():
            self._wait(self._record.swtpm, "the TPM (swtpm)", paths.swtpm_log)

    def _start_qemu(self, argv: list[str], log: IO[bytes]) -> None:
        paths = self._paths
        with _uninterrupted():
            self._write(qemu=_spawn(argv, log))
        while not paths.qmp.exists():
            self._wait(self._record.qemu, "QEMU", paths.qemu_log)
        while True:
            try:
                status = qmp.query_status(paths.qmp, timeout=self._left())
            except MachineError:
                status = ""
            if status in _READY:
                return
            self._wait(self._record.qemu, "QEMU", paths.qemu_log)

    def _wait(self, process: Process | None, what: str, log: Path) -> None:
        name = self._machine.name
        if process is None or not process.alive:
            words = qemu.last_words(log.read_bytes() if log.exists() else b"")
            raise MachineError(f"machine {name}: {what} ended at its start: {words or 'no reason'}")
        if self._left() <= 0:
            raise MachineError(f"machine {name}: {what} was not ready in time")
        self._clock.sleep(_POLL)

    def _left(self) -> float:
        return self._deadline - self._clock.monotonic()

    def _write(self, **changes: object) -> None:
        self._record = msgspec.structs.replace(self._record, **changes)
        write_record(self._paths.record, self._record)

    def _undo(self, error: BaseException) -> None:
        for process in (self._record.qemu, self._record.swtpm):
            if process is not None:
                process.send(signal.SIGKILL)
                process.wait(FIRM, self._clock)
        _remove_sockets(self._paths)
        if isinstance(error, MachineOSError):
            self._write(phase="failed", reason=error.message, qemu=None, swtpm=None)
        else:
            self._write(phase="stopped", reason="its start was interrupted", qemu=None, swtpm=None)


def _spawn(argv: list[str], log: IO[bytes]) -> Process:
    child = run.spawn(argv, log=log, detach=True)
    # Reaped as long as we live, by init afterwards; a zombie counts as dead in any case.
    threading.Thread(target=child.wait, daemon=True, name=f"reap-{child.pid}").start()
    return Process.of(child.pid)


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


def _require_startable(machine: Machine, state: State) -> tuple[str, ...]:
    name = machine.name
    if state.qemu is not None and state.status == "failed":
        raise ConflictError(
            f"machine {name} is failed: {state.reason}",
            hint=f"clear it with: machine stop {name} --force",
        )
    if state.qemu is not None:
        raise ConflictError(f"machine {name} is {state.status} already")
    if state.status == "failed":
        return (f"the last run of {name} failed: {state.reason}",)
    return ()


@contextmanager
def _placing(paths: MachinePaths, accelerator: Accelerator) -> Iterator[None]:
    """Record a start that fails before anything runs."""
    record = Record("starting", boot_id(), _me(), accelerator=accelerator.kind)
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
        os.write(descriptor, qmp.NEGOTIATE)
        yield
    finally:
        os.close(descriptor)


def _stop_qemu(
    paths: MachinePaths, process: Process, clock: Clock, *, timeout: float, firm: float
) -> HowStopped:
    asked = timeout > 0 and _tell(paths, "system_powerdown", qmp.PATIENCE)
    if asked and process.wait(timeout, clock):
        return "powered off"
    if not process.alive:
        return "powered off"
    if _tell(paths, "quit", firm) and process.wait(firm, clock):
        return "quit"
    process.send(signal.SIGKILL)
    process.wait(FIRM, clock)
    return "killed"


def _tell(paths: MachinePaths, command: str, timeout: float) -> bool:
    try:
        qmp.execute(paths.qmp, [qmp.Command(command)], timeout=timeout)
    except MachineError:
        return False
    return True


def _end_tpm(state: State, paths: MachinePaths, clock: Clock) -> None:
    process = state.swtpm or from_pid_file(paths.swtpm_pid)
    if process is None or process.wait(_GRACE, clock):
        return
    process.send(signal.SIGTERM)
    if not process.wait(FIRM, clock):
        process.send(signal.SIGKILL)
        process.wait(FIRM, clock)


def _write_intent(paths: MachinePaths, state: State) -> None:
    record = Record(
        "stopping",
        boot_id(),
        _me(),
        accelerator=state.accelerator,
        qemu=state.qemu,
        swtpm=state.swtpm,
    )
    write_record(paths.record, record)


def _settle(paths: MachinePaths, state: State) -> None:
    """A stop of a failed machine acknowledges the failure."""
    if state.status != "initialized":
        write_record(paths.record, Record("stopped", boot_id(), _me(), reason=state.reason))


def _words(how: HowStopped) -> str:
    return {"powered off": "the guest powered off"}.get(how, f"QEMU was stopped ({how})")


def _make_folders(paths: MachinePaths) -> None:
    for folder in (paths.state, paths.sockets):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise MachineError(f"{folder} belongs to another user")


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


def _me() -> Process:
    return Process.of(os.getpid())
