"""What a machine is doing: the table of decisions over records and facts."""

from __future__ import annotations

import pytest

from machineos.host.virt.qmp import Shutdown
from machineos.vm.provider import State
from machineos.vm.qemu.record import (
    NEVER_STARTED,
    NOBODY,
    Facts,
    Phase,
    Process,
    Record,
    Seen,
    adopt,
    derive,
    parse_stat,
    with_unrecorded,
)

ME, QEMU, TPM = Process(1, 10), Process(2, 20), Process(3, 30)
STAT = "812 (a) b (c) S 1 812 812 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9"
INTERRUPTED = "its start was interrupted"
NO_TPM = "its TPM (swtpm) has died; the guest goes on without one"


def record(phase: Phase, *, swtpm: Process | None = TPM, reason: str = "") -> Record:
    return Record(phase, "boot", ME, "tcg", QEMU, swtpm, reason)


def found(
    *,
    actor: bool = False,
    qemu: bool = True,
    swtpm: bool = True,
    end: str = "",
    words: str = "",
    run_state: str = "",
) -> Facts:
    return Facts(actor, qemu, swtpm, Shutdown(True, end) if end else None, words, run_state)


def dead(*, actor: bool = False, end: str = "", words: str = "") -> Facts:
    return found(actor=actor, qemu=False, swtpm=False, end=end, words=words)


@pytest.mark.parametrize(
    ("phase", "facts", "status", "reason"),
    [
        ("starting", dead(actor=True), "starting", ""),
        ("starting", dead(), "failed", INTERRUPTED),
        ("starting", found(actor=True), "starting", ""),
        ("starting", found(actor=True, swtpm=False), "starting", ""),
        ("starting", found(swtpm=False), "failed", NO_TPM),
        ("starting", found(), "failed", f"{INTERRUPTED}; QEMU still runs"),
        ("running", found(), "running", ""),
        ("running", found(actor=True), "running", ""),
        ("running", found(run_state="running"), "running", ""),
        ("running", found(run_state="paused"), "running", "paused"),
        ("running", found(run_state="io-error"), "failed", "QEMU has halted the guest: io-error"),
        *(
            ("running", found(run_state=word), "failed", f"QEMU has halted the guest: {word}")
            for word in ("internal-error", "guest-panicked", "shutdown", "watchdog")
        ),
        ("running", found(swtpm=False), "failed", NO_TPM),
        ("running", dead(end="guest-shutdown"), "stopped", "the guest powered off"),
        (
            "running",
            dead(end="guest-reset"),
            "stopped",
            "the guest rebooted, which ends this run",
        ),
        ("running", dead(end="host-qmp-quit"), "stopped", "QEMU was told to quit"),
        ("running", dead(end="host-signal"), "stopped", "QEMU was ended by a signal"),
        ("running", dead(end="host-ui"), "stopped", "QEMU ended: host-ui"),
        *(
            ("running", dead(end=bad), "failed", f"QEMU ended: {bad} without a word")
            for bad in ("guest-panic", "host-error", "none")
        ),
        ("running", dead(end="none", words="x"), "failed", "QEMU ended: none: x"),
        ("running", dead(), "failed", "QEMU has died without a word"),
        ("running", dead(words="out of memory"), "failed", "QEMU has died: out of memory"),
        ("stopping", found(actor=True), "stopping", ""),
        ("stopping", found(actor=True, swtpm=False), "failed", NO_TPM),
        ("stopping", found(), "running", ""),
        ("stopping", dead(end="guest-shutdown"), "stopped", "the guest powered off"),
        # QEMU says that it ends, lets its TPM go, and ends: in between nothing has failed.
        *(
            (phase, found(actor=actor, swtpm=swtpm, end=end), "stopping", reason)
            for phase in ("running", "stopping")
            for actor in (False, True)
            for swtpm in (False, True)
            for end, reason in (
                ("guest-shutdown", "the guest powered off"),
                ("host-qmp-quit", "QEMU was told to quit"),
                ("host-error", "QEMU ended: host-error"),
            )
        ),
        ("starting", found(actor=True, swtpm=False, end="guest-shutdown"), "starting", ""),
        ("starting", found(swtpm=False, end="guest-shutdown"), "stopping", "the guest powered off"),
        ("stopped", dead(), "stopped", "kept"),
        ("stopped", found(), "running", ""),
        ("failed", dead(), "failed", "kept"),
        ("failed", found(), "running", ""),
    ],
)
def test_every_phase_with_every_fact(phase: Phase, facts: Facts, status: str, reason: str) -> None:
    seen = derive(record(phase, reason="kept"), facts)
    assert (seen.status, seen.reason) == (status, reason)
    assert seen.qemu == (QEMU if facts.qemu else None)
    assert seen.swtpm == (TPM if facts.swtpm else None)
    assert seen.accelerator == "tcg"


def test_a_machine_without_tpm_does_not_miss_it() -> None:
    assert derive(record("running", swtpm=None), found(swtpm=False)).status == "running"


def test_to_others_it_is_a_pid() -> None:
    running = Seen("running", "why", QEMU, TPM, "kvm").state
    assert running == State("running", "why", 2, "kvm")
    assert running.active
    assert NEVER_STARTED.state == State("initialized")
    assert not NEVER_STARTED.state.active


def test_a_qemu_that_has_its_pid_file_is_ours_whatever_the_record_says() -> None:
    adopted = Record("running", "boot", QEMU, qemu=QEMU, swtpm=TPM)
    for before in (None, record("stopped"), record("starting")):
        assert adopt(before, "boot", qemu=QEMU, swtpm=TPM) == adopted


def test_a_record_of_another_boot_names_no_process() -> None:
    assert adopt(None, "boot", qemu=None, swtpm=None) is None
    phase: Phase
    for phase in ("stopped", "failed"):
        kept = adopt(record(phase, reason="x"), "boot", qemu=None, swtpm=TPM)
        assert kept == Record(phase, "boot", NOBODY, reason="x")
    for phase in ("starting", "running", "stopping"):
        lost = adopt(record(phase), "boot", qemu=None, swtpm=None)
        reason = "the host went down while it ran"
        assert lost == Record("failed", "boot", NOBODY, reason=reason)


def test_a_start_that_was_killed_leads_to_what_it_had_started() -> None:
    bare = Record("starting", "boot", ME)
    found = with_unrecorded(bare, qemu=QEMU, swtpm=TPM)
    assert found == Record("starting", "boot", ME, qemu=QEMU, swtpm=TPM)
    other = Process(7, 70)
    assert with_unrecorded(found, qemu=other, swtpm=other) == found
    assert with_unrecorded(bare, qemu=None, swtpm=None) == bare


def test_nobody_is_no_process() -> None:
    assert Process(0, 0) == NOBODY


def test_stat_of_a_command_with_parentheses() -> None:
    assert parse_stat(STAT) == ("S", 4711)
    assert parse_stat(" ".join(STAT.split()[:24])) == ("S", 4711)


@pytest.mark.parametrize("text", ["", "1 (x", "1 (x) S 1 2", " ".join(STAT.split()[:23])])
def test_not_a_stat(text: str) -> None:
    with pytest.raises(ValueError, match="not the stat of a process"):
        parse_stat(text)
