"""The plan is data, its order follows from needs and gives, and it is the one of the documents."""

from __future__ import annotations

import importlib
import random
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import cast, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakes.boot import EndError, FakeFirst
from frozen import faults
from machineos.boot import facts, phases, plan, steps
from machineos.boot.facts import (
    DOOR_CLOSED,
    ENFORCING,
    GIVEN,
    KEY,
    ROOT,
    SETTINGS,
    STORE,
    UNPRIVILEGED,
    Fact,
    Facts,
    Phase,
)
from machineos.boot.host import Host
from machineos.boot.runner import perform, run
from machineos.core.steps import Runner, Step, check_order
from machineos.document.between.bootsettings import Mode
from machineos.errors import OrderError
from test_docs import first_cells, section
from unit.boot.worlds import machine, settings

MODES: tuple[Mode, ...] = get_args(Mode)
ORDER: dict[Mode, list[str]] = {
    "run": [
        "anchors", "clock", "drivers", "keyrings", "enforce", "unseal", "first door", "identity",
        "configuration", "storage", "forget", "generation", "store", "images", "certificates",
        "root", "fresh", "requests", "volumes", "handover", "second door", "watchdog", "lock",
        "privileges", "leave",
    ],
    "install": [
        "anchors", "clock", "drivers", "keyrings", "enforce", "tpm kind", "unseal", "first door",
        "identity", "host CA", "medium", "live", "images", "certificates", "root", "fresh",
        "installer", "forget", "second door", "watchdog", "lock", "privileges", "leave",
    ],
    "provision": [
        "anchors", "clock", "drivers", "carrier", "new identity", "tpm kind", "provision", "erase",
    ],
}  # fmt: skip
BOOT_PAGE = Path(__file__).parents[3] / "docs/boot.md"


@pytest.mark.parametrize("mode", MODES)
def test_a_plan_is_data_and_always_the_same(mode: Mode) -> None:
    planned = plan.plan(mode)
    assert list(faults(planned)) == []
    assert planned == plan.plan(mode)
    assert [phase.name for phase in planned] == ORDER[mode]
    assert all(mode in phase.modes for phase in planned)
    check_order(planned, given=GIVEN)


def test_a_boot_step_is_added_by_adding_a_file() -> None:
    """Each file of the folder holds one phase; none is listed anywhere."""
    files = {path.stem for path in Path(phases.__file__).parent.glob("*.py")} - {"__init__"}
    found = plan.found()
    assert len(found) == len(files)
    for name, phase in zip(sorted(files), found, strict=True):
        module = importlib.import_module(f"machineos.boot.phases.{name}")
        assert module.PHASE is phase
        assert phase.modes <= set(MODES)
    names = {name for mode in MODES for name in ORDER[mode]}
    assert {phase.name for phase in found} == names


@given(st.randoms(use_true_random=False))
def test_the_order_does_not_depend_on_how_they_were_found(shuffling: random.Random) -> None:
    for mode in MODES:
        mixed = [phase for phase in plan.found() if mode in phase.modes]
        shuffling.shuffle(mixed)
        assert [phase.name for phase in plan.ordered(mixed)] == ORDER[mode]


def phase(name: str, needs: Sequence[str] = (), gives: Sequence[str] = ()) -> Phase:
    return Phase(name, frozenset({"run"}), frozenset(needs), frozenset(gives))


def test_ties_are_decided_by_name_and_needs_by_nothing_else() -> None:
    two = [phase("b"), phase("c", ["x"]), phase("d", gives=["x"]), phase("a", ["y"], ["z"])]
    assert [one.name for one in plan.ordered([*two, phase("e", [SETTINGS], ["y"])])] == [
        "b", "d", "c", "e", "a",
    ]  # fmt: skip
    assert plan.ordered([]) == ()


def test_what_needs_all_that_is_known_can_come_next() -> None:
    two = [phase("a", ["x"]), phase("b", [*GIVEN], ["x"])]
    assert [one.name for one in plan.ordered(two)] == ["b", "a"]


def test_what_cannot_be_put_in_order_is_refused() -> None:
    """By the runner, before the first step."""
    circle = plan.ordered([phase("a", ["x"], ["y"]), phase("b", ["y"], ["x"]), phase("c")])
    assert [one.name for one in circle] == ["c", "a", "b"]
    host = machine().power_on()
    with pytest.raises(OrderError, match="phase a comes before what it needs: x"):
        run(settings(), host, phases=circle)
    assert host.calls == []


@pytest.mark.parametrize("mode", MODES)
def test_any_two_phases_that_need_each_other_cannot_change_places(mode: Mode) -> None:
    """Whatever is moved before what it needs is refused, and nothing was done."""
    planned = plan.plan(mode)
    refused = 0
    for place, one in enumerate(planned):
        for earlier in range(place):
            moved = [*planned[:earlier], one, *planned[earlier:place], *planned[place + 1 :]]
            given_before = set(GIVEN).union(*(other.gives for other in planned[:earlier]))
            if one.needs <= given_before:
                continue
            refused += 1
            made = machine(mode)
            host = made.power_on()
            with pytest.raises(OrderError, match=f"phase {one.name} comes before"):
                run(settings(mode), host, phases=moved)
            assert host.lines == []
            assert made.tpm.writes == 0
    assert refused > 10


@pytest.mark.parametrize("mode", MODES)
def test_no_phase_can_be_left_out(mode: Mode) -> None:
    """But for those that only say something last, and the two that a right clock does without."""
    planned = plan.plan(mode)
    for place, one in enumerate(planned):
        rest = [*planned[:place], *planned[place + 1 :]]
        needed = set().union(*(other.needs for other in rest))
        if one.gives & needed:
            with pytest.raises(OrderError, match="comes before what it needs"):
                check_order(rest, given=GIVEN)
        else:
            assert one.name in {"leave", "erase", "clock"}


# -- the security order, said once more and from the other side


MUST_COME_BEFORE: dict[Mode, tuple[tuple[str, str], ...]] = {
    "run": (
        ("drivers", "unseal"), ("keyrings", "unseal"), ("enforce", "unseal"),
        ("unseal", "first door"), ("first door", "identity"),
        ("first door", "configuration"), ("first door", "generation"), ("first door", "store"),
        ("first door", "requests"), ("generation", "requests"), ("root", "requests"),
        ("requests", "second door"), ("configuration", "forget"), ("forget", "second door"),
        ("configuration", "storage"), ("storage", "forget"), ("forget", "generation"),
        ("generation", "volumes"), ("volumes", "second door"),
        ("first door", "second door"), ("identity", "configuration"),
        ("configuration", "generation"), ("generation", "store"), ("store", "images"),
        ("keyrings", "enforce"), ("keyrings", "certificates"),
        ("images", "certificates"), ("enforce", "certificates"), ("certificates", "root"),
        ("enforce", "root"), ("root", "fresh"), ("fresh", "handover"), ("handover", "second door"),
        ("enforce", "lock"), ("root", "lock"), ("second door", "lock"), ("lock", "privileges"),
        ("second door", "leave"), ("lock", "leave"), ("privileges", "leave"), ("enforce", "leave"),
        ("fresh", "leave"),
    ),
    "install": (
        ("keyrings", "unseal"), ("enforce", "unseal"), ("unseal", "first door"),
        ("first door", "identity"), ("first door", "medium"),
        ("first door", "host CA"), ("identity", "host CA"), ("host CA", "installer"),
        ("installer", "forget"), ("forget", "second door"),
        ("identity", "medium"), ("identity", "live"), ("medium", "live"), ("live", "images"),
        ("keyrings", "enforce"), ("keyrings", "certificates"),
        ("images", "certificates"), ("enforce", "certificates"), ("certificates", "root"),
        ("enforce", "root"), ("enforce", "installer"), ("installer", "second door"),
        ("second door", "lock"), ("lock", "privileges"), ("second door", "leave"),
        ("lock", "leave"), ("privileges", "leave"),
    ),
    "provision": (
        ("drivers", "carrier"), ("carrier", "new identity"), ("clock", "new identity"),
        ("new identity", "provision"), ("drivers", "provision"), ("tpm kind", "provision"),
        ("provision", "erase"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_the_security_order_is_in_the_needs(mode: Mode) -> None:
    """Each pair by the facts alone, not by where the sorting happened to put them."""
    by_name = {one.name: one for one in plan.plan(mode)}
    for earlier, later in MUST_COME_BEFORE[mode]:
        assert reaches(by_name, later, by_name[earlier].gives), f"{earlier} before {later}"


def reaches(by_name: dict[str, Phase], name: str, gives: frozenset[str]) -> bool:
    """Whether a phase needs one of ``gives``, or needs a phase that does."""
    if by_name[name].needs & gives:
        return True
    return any(
        reaches(by_name, other.name, gives)
        for other in by_name.values()
        if other.gives & by_name[name].needs
    )


AFTER = {
    steps.LoadDriver: {"drivers"},
    steps.BeginModules: {"drivers", "first door closed", "unsealed"},
    steps.LoadModules: {"drivers"},
    steps.ReadLabel: {"first door closed"},
    steps.ReadCarrierLabel: {"drivers"},
    steps.ReadHeader: {"first door closed"},
    steps.OpenLuks: {"unsealed", "first door closed"},
    steps.MountDisk: {"unsealed", "first door closed"},
    steps.MountCarrier: {"drivers"},
    steps.MountOverlay: {"root"},
    steps.MountImage: {"certificates trusted", "enforcing"},
    steps.Bind: {"enforcing"},
    steps.Move: {"door closed"},
    steps.FetchManifest: {"identity"},
    steps.BeginVolumes: {"first door closed", "unsealed"},
    steps.ListVolumes: {"first door closed", "unsealed"},
    steps.OpenVolume: {"first door closed", "generation", "unsealed"},
    steps.OpenSealed: {"drivers"},
    steps.ReadSealed: {"drivers"},
    steps.ReadFloor: {"drivers"},
    steps.RaiseFloor: {"first door closed", "generation", "root"},
    steps.MakeHostCa: {"first door closed", "identity"},
    steps.ProvisionTpm: {"identity", "kind of TPM accepted"},
    steps.EraseFile: {"provisioned"},
    steps.MountToErase: {"provisioned"},
    steps.ReadTpmMaker: {"drivers"},
    steps.TrustCertificate: {"enforcing", "no stranger's key", "publishers"},
    steps.ReplacePolicy: {"door closed", "enforcing", "root"},
    steps.DropMacAdmin: {"first root untrusted"},
    steps.KeepSecret: {"enforcing", "unsealed"},
    steps.SwitchRoot: {"door closed", "enforcing", "first root untrusted", "mac-admin dropped"},
}


def kinds() -> list[type[Step[object]]]:
    return [
        value
        for value in vars(steps).values()
        if isinstance(value, type) and issubclass(value, Step) and value is not Step
    ]


def test_what_must_hold_before_each_kind_of_step() -> None:
    found = {kind: set(kind.after) for kind in kinds() if kind.after}
    assert found == AFTER
    assert len(kinds()) == 58


def taken(mode: Mode) -> tuple[Step[object], ...]:
    """Return every step of a boot in one mode, as it was taken."""
    steps_taken: list[Step[object]] = []
    running = machine(mode).power_on()
    first = FakeFirst(running)
    first.mount_pseudo()
    first.load_drivers(settings(mode))

    def note(step: Step[object]) -> object:
        steps_taken.append(step)
        return perform(cast("Host", running), step)

    runner: Runner[Facts] = Runner(note)
    with suppress(EndError):  # systemd has taken over; a machine that was provisioned is done
        runner.run(plan.plan(mode), Facts().plus(SETTINGS, settings(mode)), given=GIVEN)
    return tuple(steps_taken)


def test_every_step_is_frozen_all_the_way_down() -> None:
    everything = {mode: taken(mode) for mode in MODES}
    assert [
        fault for found in everything.values() for step in found for fault in faults(step)
    ] == []
    seen = {type(step) for found in everything.values() for step in found}
    # In a machine whose clock is right and whose disks are there at once; they take a number.
    # And nobody has asked for anything; tests/unit/boot/phases/test_requests has those.
    assert {kind.__name__ for kind in kinds() if kind not in seen} == {
        "SetClock", "Sleep", "ReadPart", "ReadFloor", "RaiseFloor",
    }  # fmt: skip


def test_every_kind_of_step_is_frozen() -> None:
    for kind in kinds():
        assert issubclass(kind, msgspec.Struct)
        assert kind.__struct_config__.frozen
        assert kind.__struct_fields__ == kind.__match_args__


def test_only_these_steps_last() -> None:
    """What outlives a power cut has a fault point: the TPM's content is changed, and the disk that
    an identity came from."""
    assert {kind: kind.point for kind in kinds() if kind.point} == {
        steps.ProvisionTpm: "tpm-provisioned",
        steps.RaiseFloor: "floor-raised",
        steps.MountToErase: "carrier-writable",
        steps.EraseFile: "identity-erased",
    }


@pytest.mark.parametrize("mode", ["run", "install"])
def test_nothing_of_a_disk_is_looked_at_before_the_first_door(mode: Mode) -> None:
    """By what was done, whatever the phases say of themselves; the kernel alone has read tables of
    partitions by then."""
    done = [type(step) for step in taken(mode)]
    door = done.index(steps.CloseDoor)
    looking = {
        steps.ReadLabel, steps.ReadHeader, steps.OpenLuks, steps.MountDisk, steps.ListFolder,
        steps.MountImage, steps.ReadImage, steps.FetchManifest, steps.ListPartitions,
        steps.ListDisks, steps.ListOptical, steps.MountCarrier, steps.ReadCarrierLabel,
    }  # fmt: skip
    assert looking & set(done[door:])
    assert not looking & set(done[:door])
    sealed = [step.index.name for step in taken(mode)[:door] if isinstance(step, steps.ReadSealed)]
    assert sealed == ["CONFIGURATION_KEY", "STORAGE_KEY"]


def test_each_fact_has_its_own_name() -> None:
    names = [value for name, value in vars(facts).items() if name.isupper() and is_fact(value)]
    assert len(names) == len(set(names)) > 25
    assert {str(one) for one in (KEY, STORE)} == {"configuration key", "store"}
    assert {ENFORCING, DOOR_CLOSED, UNPRIVILEGED, ROOT} < set(names)


def is_fact(value: object) -> bool:
    return isinstance(value, Fact) or (isinstance(value, str) and not value.startswith("/"))


def test_every_need_is_given_and_every_fact_is_needed() -> None:
    found = plan.found()
    gives = frozenset().union(*(one.gives for one in found)) | GIVEN
    needs = frozenset().union(*(one.needs for one in found))
    assert needs <= gives
    assert gives == needs


# -- the documents


def test_the_page_has_the_phases_by_their_names() -> None:
    page = BOOT_PAGE.read_text()
    for mode in MODES:
        assert first_cells(section(page, f"Mode {mode}"))[: len(ORDER[mode])] == ORDER[mode], mode
