"""The table of a machine's life, and what is tried to end it."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest

from machineos.errors import ConflictError, OrderError
from machineos.host.virt.qmp import Request
from machineos.vm.qemu import moves
from machineos.vm.qemu.moves import Event, Push
from machineos.vm.qemu.record import NEVER_STARTED, Phase, Process, Record, Seen

ME, QEMU, TPM = Process(1, 10), Process(2, 20), Process(3, 30)


def record(phase: Phase) -> Record:
    return Record(phase, "boot", ME, "tcg", QEMU, TPM, "before")


LEGAL = {
    ("starting", "ready"): Record("running", "boot", ME, "tcg", QEMU, TPM, "why"),
    ("starting", "refused"): Record("failed", "boot", ME, "tcg", None, None, "why"),
    ("starting", "interrupted"): Record("stopped", "boot", ME, "tcg", None, None, "why"),
    ("stopping", "ended"): Record("stopped", "boot", ME, "", None, None, "why"),
}


@pytest.mark.parametrize(("phase", "event"), list(product(get_args(Phase), get_args(Event))))
def test_what_is_not_in_the_table_is_a_defect(phase: Phase, event: Event) -> None:
    wanted = LEGAL.get((phase, event))
    if wanted is not None:
        assert moves.advance(record(phase), event, reason="why") == wanted
        return
    with pytest.raises(OrderError, match=f"a machine that is {phase} cannot be {event}"):
        moves.advance(record(phase), event)


def test_a_start_that_is_ready_has_no_reason_any_more() -> None:
    assert moves.advance(record("starting"), "ready").reason == ""


def test_intents_name_who_carries_them_out() -> None:
    assert moves.begin("boot", ME, "kvm") == Record("starting", "boot", ME, accelerator="kvm")
    seen = Seen("running", "paused", QEMU, TPM, "tcg")
    assert moves.halt(seen, "boot", ME) == Record("stopping", "boot", ME, "tcg", QEMU, TPM)


def test_a_stop_of_what_does_not_run_acknowledges_why() -> None:
    failed = Seen("failed", "no TPM")
    assert moves.acknowledge(failed, "boot", ME) == Record("stopped", "boot", ME, reason="no TPM")
    assert moves.acknowledge(NEVER_STARTED, "boot", ME) is None


def test_only_what_does_not_run_is_started() -> None:
    assert moves.require_startable("a", NEVER_STARTED) == ()
    assert moves.require_startable("a", Seen("stopped", "x")) == ()
    told = moves.require_startable("a", Seen("failed", "x", swtpm=TPM))
    assert told == ("the last run of a failed: x",)
    with pytest.raises(ConflictError) as caught:
        moves.require_startable("a", Seen("failed", "x", QEMU))
    assert caught.value.message == "machine a is failed: x"
    assert caught.value.hint == "clear it with: machine stop a --force"
    with pytest.raises(ConflictError, match="machine a is running already"):
        moves.require_startable("a", Seen("running", "", QEMU))


def test_nothing_that_lives_is_deleted() -> None:
    moves.require_deletable("a", Seen("failed", "x"))
    for seen in (Seen("running", "", QEMU), Seen("failed", "", None, TPM)):
        with pytest.raises(ConflictError, match=f"machine a is {seen.status}") as caught:
            moves.require_deletable("a", seen)
        assert caught.value.hint == "stop it with: machine stop a"


def test_the_guest_is_asked_then_qemu_then_nobody() -> None:
    quit_, kill = Push(Request("quit"), 30.0, 30.0, "quit"), Push(None, 0.0, 30.0, "killed")
    ask = Push(Request("system_powerdown"), 30.0, 0.5, "powered off")
    assert moves.pushes(0.5) == (ask, quit_, kill)
    assert moves.pushes(0) == (quit_, kill)
    assert moves.pushes(0, 0.3) == (Push(Request("quit"), 0.3, 0.3, "quit"), kill)


def test_how_it_stopped_in_words() -> None:
    assert moves.stop_reason("powered off") == "the guest powered off"
    assert moves.stop_reason("quit") == "QEMU was stopped (quit)"
    assert moves.stop_reason("killed") == "QEMU was stopped (killed)"
