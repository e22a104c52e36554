"""Records on the disk, and machines looked at with real processes."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from machineos.core import run
from machineos.core.clock import SystemClock
from machineos.errors import DocumentError
from machineos.vm.paths import MachinePaths
from machineos.vm.qemu.look import look, read_record, said_last, write_record
from machineos.vm.qemu.process import boot_id, from_pid_file, myself, process_of
from machineos.vm.qemu.record import NEVER_STARTED, Process, Record, Seen
from waiting import wait_for

CLOCK = SystemClock()
ME = myself()
GONE = Process(ME.pid, ME.start - 1)


@pytest.fixture
def paths(tmp_path: Path) -> MachinePaths:
    return MachinePaths(tmp_path / "machine.yaml", tmp_path, tmp_path / "sockets", tmp_path / "l")


def seen(paths: MachinePaths, record: Record, *, ask: bool = False) -> Seen:
    write_record(paths.record, record)
    return look(paths, CLOCK, ask=ask)


def test_never_started(paths: MachinePaths) -> None:
    assert look(paths, CLOCK) == NEVER_STARTED


def test_record_of_a_dead_process_is_not_believed(paths: MachinePaths) -> None:
    found = seen(paths, Record("running", boot_id(), GONE, qemu=GONE, swtpm=ME))
    assert (found.status, found.qemu, found.swtpm) == ("failed", None, ME)


def test_record_of_another_boot_of_the_host(paths: MachinePaths) -> None:
    found = seen(paths, Record("running", "before", ME, qemu=ME))
    assert (found.status, found.reason) == ("failed", "the host went down while it ran")
    assert seen(paths, Record("stopped", "before", ME, reason="x")).status == "stopped"


def test_what_a_killed_start_had_started_is_found_by_its_pid_files(paths: MachinePaths) -> None:
    starting = Record("starting", boot_id(), GONE)
    assert seen(paths, starting).reason == "its start was interrupted"
    children = []
    with paths.qemu_log.open("wb") as log:
        for pid_file in (paths.qemu_pid, paths.swtpm_pid):  # as in the arguments of both programs
            argv = ["sh", "-c", "sleep 3600 & wait", str(pid_file)]
            child = run.spawn(argv, log=log, detach=True)
            children.append(child)
            pid_file.write_text(f"{child.pid}\n")
            wait_for(partial(from_pid_file, pid_file), during=child)
    try:
        found = look(paths, CLOCK)
        assert found.status == "failed"
        assert found.reason == "its start was interrupted; QEMU still runs"
        assert (found.qemu, found.swtpm) == tuple(process_of(child.pid) for child in children)
        assert seen(paths, Record("stopped", boot_id(), GONE, reason="x")).qemu is None
    finally:
        for child in children:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def test_event_log_tells_an_orderly_end(paths: MachinePaths) -> None:
    paths.event_log.write_bytes(
        b'{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}\r\n'
    )
    assert seen(paths, Record("running", boot_id(), GONE, qemu=GONE)).status == "stopped"


def test_only_the_end_of_a_log_is_read(paths: MachinePaths) -> None:
    assert said_last(paths.qemu_log) == ""
    paths.qemu_log.write_bytes(b"x" * (200 << 10) + b"\nqemu-system-x86_64: the end\n")
    assert said_last(paths.qemu_log) == "the end"


def test_silent_qemu_is_said_when_it_is_asked(paths: MachinePaths) -> None:
    record = Record("running", boot_id(), ME, qemu=ME)
    found = seen(paths, record, ask=True)
    assert (found.status, found.reason) == ("running", "QEMU does not answer")
    assert seen(paths, record).reason == ""


def test_records_round_trip_and_damage_is_an_error(paths: MachinePaths) -> None:
    one = Record("running", "boot", ME, "tcg", ME, GONE, "x")
    write_record(paths.record, one)
    assert read_record(paths.record) == one
    assert paths.record.stat().st_mode & 0o777 == 0o600
    paths.record.write_text('{"phase": "dancing"}')
    with pytest.raises(DocumentError):
        read_record(paths.record)
