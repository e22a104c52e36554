"""An installation that is killed before each single write; what the tests of that share.

The places are found by counting the writes of one installation that is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from fakes.machine import FakeMachine
from fakes.persistence import Loss, Persistence, PowerCutError
from machineos.core.facts import Facts, Part
from machineos.install import source, stage, write
from machineos.install.source import Wish
from machineos.oci.model.place import Place
from unit.document.conftest import MemoryRepository
from unit.install.conftest import KEY, NEWER, Watched, install

WRITING = write.PARTS
PASTS = ("an empty disk", "an older installation")


@dataclass(frozen=True)
class Writes:
    """One step that persists: its fault point, and the numbers of its writes."""

    point: str
    numbers: range


@dataclass
class Bench:
    """A machine that has fetched everything, again and again right before its disk is touched."""

    machine: FakeMachine
    kept: Persistence
    facts: Facts
    staged: MemoryRepository

    @classmethod
    def prepare(cls, machine: FakeMachine, place: Place) -> Bench:
        machine.kept.operations = 0
        watched = Watched(machine.boot())
        facts = watched.run(Wish(place), (*source.PARTS, *stage.PARTS))
        return cls(machine, machine.kept.copy(), facts, watched.host.staged[stage.LAYOUT])

    def start(self, *, cut_at: int = -1) -> None:
        """Have the disk as it was at first; the power fails before the write ``cut_at``."""
        self.machine.kept = self.kept.copy()
        self.machine.kept.cut_at = cut_at

    def write(self, phases: tuple[Part, ...] = WRITING, *holding: str) -> Watched:
        """Write to the disk, from a boot of its own."""
        watched = Watched(self.machine.boot())
        watched.host.staged[stage.LAYOUT] = self.staged
        watched.take(phases, self.facts, *holding)
        return watched

    def document(self) -> str:
        """Return the document that the machine runs, empty when it is not installed."""
        return self.machine.installed(KEY, disk="vda")

    def writes(self) -> list[Writes]:
        """Write, and return every step that persists with its writes."""
        self.start()
        watched = self.write()
        ends = [*watched.starts[1:], self.machine.kept.operations]
        found = zip(watched.steps, watched.starts, ends, strict=True)
        return [Writes(step.fault_point, range(start, end)) for step, start, end in found
                if step.point]  # fmt: skip

    def cut(self, number: int, loss: Loss) -> str:
        """Cut before one write, look, install once more, and return what was seen."""
        self.start(cut_at=number)
        with pytest.raises(PowerCutError):
            self.write()
        self.machine.power_cut(loss)
        seen = self.document()
        self.write()
        return seen


def killed_at_every_step(machine: FakeMachine, loss: Loss, over: str) -> None:
    """Assert that the machine counts as not installed, or is installed whole, after each cut."""
    if over == "an older installation":
        install(machine)
    bench = Bench.prepare(machine, NEWER)
    before = bench.document()
    steps = bench.writes()
    after = bench.document()
    assert before != after != ""
    assert sum(len(step.numbers) for step in steps) == bench.machine.kept.operations
    seen: list[str] = []
    for step in steps:
        assert step.numbers, f"{step.point} writes nothing"
        for number in step.numbers:
            what = f"cut at {step.point}, before write {number - step.numbers.start}"
            try:
                seen.append(bench.cut(number, loss))
                assert bench.document() == after, "installing once more"
            except (AssertionError, KeyError) as error:
                raise AssertionError(f"{what}: {error!r}") from error
    assert seen[0] == before
    assert set(seen) <= {before, "", after}
    if loss.name != "torn":  # the old machine, then none, then the new one; never back
        order = {before: 0, "": 1, after: 2}
        places = [order[one] for one in seen]
        assert places == sorted(places)
        assert set(places) >= {1, 2}
