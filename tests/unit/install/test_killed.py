"""Killed at every step: the power fails before each single write of an installation.

The places are found by counting the writes of one installation that is left alone. What was not
synced is lost, kept, or torn; then the machine counts as not installed, or it is installed whole,
and installing once more succeeds.
"""

from __future__ import annotations

import pytest

from fakes.machine import FakeHost, FakeMachine
from fakes.persistence import LOSSES, Loss, PowerCutError
from machineos.core.facts import Facts, Part
from machineos.core.steps import Talk
from machineos.install.source import Wish
from machineos.install.steps import Say, WriteTable
from machineos.state.slots.steps import CONFIGURED, READ_BACK, STORED
from machineos.state.volumes.steps import TABLE

from .conftest import PLACE, Watched, install
from .killing import PASTS, WRITING, Bench, killed_at_every_step

pytestmark = pytest.mark.early


@pytest.mark.parametrize("loss", LOSSES[:3], ids=lambda loss: f"{loss.name}-{loss.seed}")
@pytest.mark.parametrize("over", PASTS)
def test_killed_at_every_step(machine: FakeMachine, loss: Loss, over: str) -> None:
    """Torn in other ways: tests/slow."""
    killed_at_every_step(machine, loss, over)


def points_of(machine: FakeMachine) -> list[str]:
    return [step.fault_point for step in install(machine).steps if step.point]


def test_every_fault_point_of_an_installation(machine: FakeMachine) -> None:
    """Those that are there, by name: a new one appears here."""
    points = points_of(machine)
    images = [point for point in points if point.startswith("image:")]
    assert len(images) == 3
    assert points == [
        "table:vda",
        "filesystem:ESP", "filesystem:machine-store",
        "integrity:vda5", "volume-group:machine-data", "volume:machine-log",
        *images,
        "configuration-volume", "filesystem:config", "beside-the-store:host-ca.key",
        "beside-the-store:host-ca.pem", "beside-the-store:host-ca.p7s",
        "beside-the-store:storage.pub", "first-commit",
        "boot-file:EFI/machineos-a/grubx64.efi", "boot-file:EFI/machineos-a/shimx64.efi",
        "boot-file:EFI/BOOT/grubx64.efi", "boot-file:EFI/BOOT/BOOTX64.EFI",
        "boot-entry:machineos-a",
    ]  # fmt: skip
    assert points_of(machine) == [*points[:-1], "forget-entry:0000", "boot-entry:machineos-a"]


def test_the_runner_announces_each_of_them_twice(machine: FakeMachine) -> None:
    watched = install(machine)
    names = [step.fault_point for step in watched.steps if step.point]
    assert watched.points == [f"{when} {name}" for name in names for when in ("before", "after")]
    assert len(set(names)) == len(names)


class Sly(FakeHost):
    """A host on which a line for people changes the disk."""

    def say(self, text: str) -> None:
        super().say(text)
        self.kept.set_at_once(("table", "vda"), ())


def test_a_step_that_persists_without_a_fault_point_fails(machine: FakeMachine) -> None:
    with pytest.raises(AssertionError, match=r"Say.* persists and has no fault point"):
        Watched(Sly(machine)).run(Wish(PLACE))


@pytest.mark.parametrize(
    "order",
    [
        pytest.param((0, 1, 2, 3, 4, 5, 7, 6, 8), id="the entry before the boot files"),
        pytest.param((0, 1, 2, 3, 4, 6, 5, 7, 8), id="the boot files before the configuration"),
        pytest.param((0, 1, 2, 3, 6, 4, 5, 7, 8), id="the boot files before the images"),
    ],
)
def test_another_order_is_found_by_cutting(machine: FakeMachine, order: tuple[int, ...]) -> None:
    """Without this, nobody would know whether the test above can fail. The runner refuses these
    orders; here nothing is asked what it needs."""

    def talk(facts: Facts) -> Talk[Facts]:
        known = facts
        for number in order:
            known = known.merged((yield from WRITING[number].talk(known)))
        return Facts()

    bench = Bench.prepare(machine, PLACE)
    holding = (TABLE, STORED, CONFIGURED, READ_BACK)
    phases = (Part("all of it", bench.facts.names() | {*holding}, frozenset(), talk),)
    bench.start()
    writes = range(bench.write(phases, *holding).host.kept.operations)
    found = []
    for number in writes:
        bench.start(cut_at=number)
        with pytest.raises(PowerCutError):
            bench.write(phases, *holding)
        bench.machine.power_cut(Loss("lost"))
        try:
            bench.document()
        except (AssertionError, KeyError) as error:
            found.append(error)
    assert found


def test_nothing_is_written_before_all_has_been_verified(machine: FakeMachine) -> None:
    steps = install(machine).steps
    first = next(number for number, step in enumerate(steps) if step.point)
    assert isinstance(steps[first], WriteTable)
    assert steps[first - 1] == Say("writing to disk vda")
