"""The power is cut at every step of every mode, and the machine is started again.

Nothing here lists a step or a fault point: they are counted while a boot runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import get_args

import pytest

from fakes.boot import (
    FakeFirst,
    FakeHost,
    FakeMachine,
    HandedOverError,
    Outcome,
    PowerCutError,
    PoweredOffError,
    RestartedError,
)
from fakes.bootparts.tpm import FakeTpm
from machineos.boot.facts import (
    FIRST_DOOR,
    GIVEN,
    PARTITIONS,
    RUNS,
    SETTINGS,
    UNSEALED,
    Facts,
    Phase,
)
from machineos.boot.plan import ordered, plan
from machineos.boot.runner import perform
from machineos.boot.steps import MakeFolder, MountDisk, WriteFile
from machineos.core.steps import Runner, Step, Talk, ask
from machineos.document.between.bootsettings import Mode
from machineos.errors import MachineOSError
from machineos.host.kernel.flags import Flag
from machineos.trust.measure import tpm_policy
from machineos.trust.seal.layout import Index
from unit.boot.ends import assert_secrets_hidden, assert_trusted, gives_out
from unit.boot.worlds import machine, of_kind, settings

pytestmark = pytest.mark.early

MODES: tuple[Mode, ...] = get_args(Mode)
# Of the disk, when the power went after its work was done.
KEY_ERASED = "/run/machineos/identity/privkey.pem does not exist"


def ends_well(made: FakeMachine) -> Outcome:
    """Start it again: it has to come up and be trusted in all, or to refuse in one line."""
    outcome = made.boot()
    assert outcome.end in {HandedOverError, PoweredOffError, RestartedError}, outcome.end
    if outcome.end is HandedOverError:
        assert_trusted(outcome)
    elif outcome.end is PoweredOffError:
        assert made.tpm.provisioned
        assert not gives_out(outcome)
    else:
        assert outcome.reason
        assert_secrets_hidden(outcome)
    return outcome


def calls_of(mode: Mode) -> int:
    """Count what a boot asks of its host."""
    return len(machine(mode).boot().host.calls)


def every_cut() -> list[tuple[Mode, int, bool]]:
    """Before each step, which is after the one before it; and after the last."""
    cuts: list[tuple[Mode, int, bool]] = []
    for mode in MODES:
        count = calls_of(mode)
        cuts += [(mode, number, False) for number in range(count)] + [(mode, count - 1, True)]
    return cuts


@pytest.mark.parametrize(("mode", "number", "late"), every_cut())
def test_the_power_goes_before_or_after_a_step(mode: Mode, number: int, late: bool) -> None:
    """A machine that runs or installs comes up as if nothing had been; a blank one is given its
    identity, or has it."""
    made = machine(mode)
    before = made.writes()
    cut = made.boot(cut=number, late_cut=late)
    # What ends a boot ends it, whether the power goes just then or not.
    assert cut.end in {PowerCutError, HandedOverError}
    assert_secrets_hidden(cut)
    assert mode == "provision" or made.writes() == before
    again = ends_well(made)
    if mode != "provision":
        assert again.end is HandedOverError
    elif again.end is RestartedError:
        assert again.reason in {"the TPM is provisioned already", KEY_ERASED}
        assert made.tpm.provisioned


# -- inside the longest step that lasts


def writes_of_provisioning() -> list[str]:
    """Return each write to the TPM, as they come."""
    seen: list[str] = []
    machine("provision", tick=seen.append).boot()
    return seen


@pytest.mark.parametrize("write", writes_of_provisioning())
def test_the_power_goes_within_provisioning(write: str) -> None:
    """A TPM that was half filled is filled by the next run, and until then boots nothing."""

    def tick(what: str) -> None:
        if what == write:
            raise PowerCutError

    made = machine("provision", tick=tick)
    assert made.boot().end is PowerCutError
    ours = machine(tpm=made.tpm)
    assert made.tpm.provisioned == (write == "lockout password")
    assert ours.boot().end is RestartedError
    made.tick = lambda _what: None
    again = ends_well(made)
    assert (again.end is PoweredOffError) == (write != "lockout password")
    assert set(made.tpm.nv) == set(Index)


# -- fault points


class Watched:
    """A boot in which each fault point is heard, and what lasts is counted around each step."""

    def __init__(self, made: FakeMachine, mode: Mode) -> None:
        self.made = made
        self.mode = mode
        self.points: list[str] = []
        self.silent: list[str] = []
        self.cut = ""
        self.phases: Sequence[Phase] = plan(mode)

    def watch(self, point: str) -> None:
        self.points.append(point)
        if point == self.cut:
            raise PowerCutError

    def perform(self, host: FakeHost, step: Step[object]) -> object:
        before = self.made.writes()
        try:
            return perform(host, step)
        finally:
            if self.made.writes() != before and not step.point:
                self.silent.append(type(step).__name__)

    def boot(self) -> type[BaseException] | None:
        host = self.made.power_on()
        first = FakeFirst(host)
        first.mount_pseudo()
        first.load_drivers(settings(self.mode))
        runner: Runner[Facts] = Runner(partial(self.perform, host), watch=self.watch)
        known = Facts().plus(SETTINGS, settings(self.mode))
        try:
            runner.run(self.phases, known, given=GIVEN)
        except (PowerCutError, HandedOverError, MachineOSError) as end:
            return type(end)
        return None


def points_of(mode: Mode) -> list[str]:
    watched = Watched(machine(mode), mode)
    watched.boot()
    return watched.points


def test_every_fault_point_is_where_something_lasts() -> None:
    assert points_of("run") == points_of("install") == []
    steps = ("tpm-provisioned", "carrier-writable", "identity-erased")
    assert points_of("provision") == [f"{at} {one}" for one in steps for at in ("before", "after")]


@pytest.mark.parametrize(
    ("mode", "point"), [(mode, point) for mode in MODES for point in points_of(mode)]
)
def test_the_power_goes_at_a_fault_point(mode: Mode, point: str) -> None:
    watched = Watched(machine(mode), mode)
    watched.cut = point
    assert watched.boot() is PowerCutError
    assert watched.points[-1] == point
    again = ends_well(watched.made)
    assert (again.end is PoweredOffError) == (point == "before tpm-provisioned")


@pytest.mark.parametrize("mode", MODES)
def test_a_step_that_lasts_has_a_fault_point(mode: Mode) -> None:
    """The machine itself notices what outlives its power, and which step did it."""
    watched = Watched(machine(mode), mode)
    watched.boot()
    assert watched.silent == []
    assert (watched.made.writes() > 0) == (mode == "provision")


class Counting(FakeTpm):
    """A TPM in which closing the door would leave a trace."""

    def close_door(self, phase: tpm_policy.Phase) -> None:
        super().close_door(phase)
        self.writes += phase == "second"


class Writable(Phase, frozen=True):
    """A boot step that somebody adds, and that mounts a disk so that it can be written to."""

    def talk(self, _facts: Facts) -> Talk[Facts]:
        yield from ask(MakeFolder(Path("/more")))
        yield from ask(MountDisk(Path("/dev/vda3"), Path("/more"), "ext4", Flag.NOEXEC))
        yield from ask(WriteFile(Path("/more/note"), b"x"))
        return Facts()


def test_a_step_that_lasted_silently_would_be_noticed() -> None:
    made = machine()
    made.tpm = of_kind(Counting, made.tpm)
    watched = Watched(made, "run")
    watched.boot()
    assert watched.silent == ["CloseDoor"]
    watched = Watched(machine(), "run")
    more = Writable(
        "a", modes=RUNS, needs=frozenset({UNSEALED, FIRST_DOOR, PARTITIONS}), gives=frozenset()
    )
    watched.phases = ordered([*watched.phases, more])
    assert watched.boot() is HandedOverError
    assert watched.silent == ["MountDisk", "WriteFile"]
