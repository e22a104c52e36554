"""The status of a machine: the table of decisions, and records on the disk."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from machineos.core import run
from machineos.errors import DocumentError
from machineos.host.virt.qmp import Shutdown
from machineos.vm.process import Process, from_pid_file
from machineos.vm.state import (
    Facts,
    Phase,
    Record,
    derive,
    read_record,
    read_state,
    write_record,
)
from machineos.vm.store import MachinePaths
from waiting import wait_for

ME = Process.of(os.getpid())
GONE = Process(ME.pid, ME.start - 1)
POWERED_OFF = Shutdown(True, "guest-shutdown")


def record(
    phase: Phase, *, swtpm: Process | None = ME, accelerator: str = "", reason: str = ""
) -> Record:
    return Record(phase, "boot", ME, accelerator, qemu=ME, swtpm=swtpm, reason=reason)


def found(
    actor: bool = False,
    qemu: bool = True,
    swtpm: bool = True,
    shutdown: Shutdown | None = None,
    words: str = "",
    run_state: str = "",
) -> Facts:
    return Facts(actor, qemu, swtpm, shutdown, words, run_state)


@pytest.mark.parametrize(
    ("phase", "facts", "status", "reason"),
    [
        ("starting", found(actor=True, qemu=False), "starting", ""),
        ("starting", found(qemu=False), "failed", "interrupted"),
        ("starting", found(), "failed", "QEMU still runs"),
        ("running", found(), "running", ""),
        ("running", found(run_state="running"), "running", ""),
        ("running", found(run_state="paused"), "running", "paused"),
        ("running", found(run_state="io-error"), "failed", "io-error"),
        ("running", found(run_state="internal-error"), "failed", "internal-error"),
        ("running", found(swtpm=False), "failed", "TPM"),
        ("running", found(qemu=False, shutdown=POWERED_OFF), "stopped", "powered off"),
        (
            "running",
            found(qemu=False, shutdown=Shutdown(True, "guest-panic")),
            "failed",
            "guest-panic",
        ),
        ("running", found(qemu=False), "failed", "died without a word"),
        ("running", found(qemu=False, words="out of memory"), "failed", "died: out of memory"),
        ("stopping", found(actor=True), "stopping", ""),
        ("stopping", found(), "running", ""),
        ("stopping", found(qemu=False, shutdown=POWERED_OFF), "stopped", "powered off"),
        ("stopped", found(qemu=False, swtpm=False), "stopped", ""),
        ("failed", found(qemu=False, swtpm=False), "failed", ""),
    ],
)
def test_table(phase: Phase, facts: Facts, status: str, reason: str) -> None:
    state = derive(record(phase), facts)
    assert state.status == status
    assert reason in state.reason
    assert state.active is facts.qemu


def test_a_machine_without_tpm_does_not_miss_it() -> None:
    assert derive(record("running", swtpm=None), found(swtpm=False)).status == "running"


@pytest.fixture
def paths(tmp_path: Path) -> MachinePaths:
    return MachinePaths(tmp_path / "machine.yaml", tmp_path, tmp_path / "sockets", tmp_path / "l")


def test_never_started(paths: MachinePaths) -> None:
    assert read_state(paths, "boot").status == "initialized"


def test_record_of_a_dead_process_is_not_believed(paths: MachinePaths) -> None:
    write_record(paths.record, Record("running", "boot", GONE, qemu=GONE))
    state = read_state(paths, "boot")
    assert (state.status, state.active) == ("failed", False)


def test_record_of_another_boot_of_the_host(paths: MachinePaths) -> None:
    write_record(paths.record, Record("running", "before", ME, qemu=ME))
    state = read_state(paths, "boot")
    assert (state.status, state.reason) == ("failed", "the host went down while it ran")
    write_record(paths.record, Record("stopped", "before", ME, reason="x"))
    assert read_state(paths, "boot").status == "stopped"


def test_a_start_that_was_killed_before_it_recorded_what_it_had_started(
    paths: MachinePaths,
) -> None:
    write_record(paths.record, Record("starting", "boot", GONE))
    assert read_state(paths, "boot").reason == "its start was interrupted"
    log = paths.qemu_log.open("wb")
    children = []
    for pid_file in (paths.qemu_pid, paths.swtpm_pid):  # as in the arguments of both programs
        child = run.spawn(["sh", "-c", "sleep 3600 & wait", str(pid_file)], log=log, detach=True)
        pid_file.write_text(f"{child.pid}\n")
        children.append(child)
        wait_for(lambda: from_pid_file(pid_file), during=child)  # noqa: B023 (at once)
    log.close()
    try:
        state = read_state(paths, "boot")
        assert (state.status, state.reason) == (
            "failed",
            "its start was interrupted; QEMU still runs",
        )
        assert (state.qemu, state.swtpm) == tuple(Process.of(child.pid) for child in children)
        write_record(paths.record, Record("stopped", "boot", GONE, reason="x"))
        assert not read_state(paths, "boot").active
    finally:
        for child in children:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def test_event_log_tells_an_orderly_end(paths: MachinePaths) -> None:
    write_record(paths.record, Record("running", "boot", GONE, qemu=GONE))
    paths.event_log.write_bytes(
        b'{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}\r\n'
    )
    assert read_state(paths, "boot").status == "stopped"


def test_silent_qemu_is_said(paths: MachinePaths) -> None:
    write_record(paths.record, Record("running", "boot", ME, qemu=ME))
    state = read_state(paths, "boot", ask=True)
    assert (state.status, state.reason) == ("running", "QEMU does not answer")


def test_records_round_trip_and_damage_is_an_error(paths: MachinePaths) -> None:
    one = record("running", reason="x", accelerator="tcg")
    write_record(paths.record, one)
    assert read_record(paths.record) == one
    assert paths.record.stat().st_mode & 0o777 == 0o600
    paths.record.write_text('{"phase": "dancing"}')
    with pytest.raises(DocumentError):
        read_record(paths.record)
