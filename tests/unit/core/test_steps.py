"""The one runner: order, answers, fault points."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import pytest

from changed import replace
from machineos.core.steps import (
    Answers,
    Dialogue,
    Phase,
    Runner,
    Step,
    Talk,
    ask,
    check_order,
    is_dialogue,
)
from machineos.errors import BootError, MachineOSError, MissingError, OrderError


@dataclass(frozen=True, slots=True)
class Look(Step[int]):
    at: str


@dataclass(frozen=True, slots=True)
class Write(Step[None]):
    point: ClassVar[str] = "write"
    value: int = 0

    @property
    def where(self) -> str:
        return str(self.value)


@dataclass(frozen=True, slots=True)
class Sync(Step[None]):
    point: ClassVar[str] = "sync"


@dataclass(frozen=True)
class Facts:
    seen: int = 0
    done: tuple[object, ...] = ()


@dataclass(frozen=True)
class Looking:
    name: str = "look"
    needs: frozenset[str] = frozenset()
    gives: frozenset[str] = frozenset({"seen"})

    def plan(self, facts: Facts) -> tuple[Step[object], ...]:
        return (Look("here"), Look("there"))

    def learn(self, facts: Facts, answers: Answers) -> Facts:
        return replace(facts, seen=answers.to(Look("here")) + answers.to(Look("there")))


@dataclass(frozen=True)
class Writing:
    name: str = "write"
    needs: frozenset[str] = frozenset({"seen"})
    gives: frozenset[str] = frozenset({"written"})

    def plan(self, facts: Facts) -> tuple[Step[object], ...]:
        return (Write(facts.seen), Sync())

    def learn(self, facts: Facts, answers: Answers) -> Facts:
        return replace(facts, done=answers.all())


@dataclass
class Hosted:
    log: list[str] = field(default_factory=list)

    def perform(self, step: Step[object]) -> object:
        self.log.append(type(step).__name__)
        return len(step.at) if isinstance(step, Look) else None


def run(host: Hosted, *phases: Phase[Facts], given: frozenset[str] = frozenset()) -> Facts:
    runner: Runner[Facts] = Runner(host.perform, watch=host.log.append)
    return runner.run(phases, Facts(), given=given)


def test_phases_in_order_with_what_was_learnt() -> None:
    host = Hosted()
    assert run(host, Looking(), Writing()) == Facts(9, (None, None))
    assert host.log == [
        "Look", "Look", "before write:9", "Write", "after write:9", "before sync", "Sync",
        "after sync",
    ]  # fmt: skip


def test_a_wrong_order_is_refused_before_anything_happens() -> None:
    host = Hosted()
    with pytest.raises(OrderError, match="phase write comes before what it needs: seen"):
        run(host, Writing(), Looking())
    assert host.log == []


def test_what_was_given_counts() -> None:
    host = Hosted()
    run(host, Writing(), given=frozenset({"seen"}))
    assert host.log[1] == "Write"


def test_a_fact_is_given_once() -> None:
    with pytest.raises(OrderError, match="phase look gives what is there already: seen"):
        check_order([Looking(), Looking()])


def test_a_cut_at_a_fault_point_stops_everything() -> None:
    host = Hosted()

    def cut(point: str) -> None:
        if point == "after write:9":
            raise BootError("cut")

    phases: list[Phase[Facts]] = [Looking(), Writing()]
    with pytest.raises(BootError):
        Runner[Facts](host.perform, watch=cut).run(phases, Facts())
    assert host.log == ["Look", "Look", "Write"]


def test_each_phase_is_announced() -> None:
    names: list[str] = []
    host = Hosted()
    runner: Runner[Facts] = Runner(host.perform, begin=lambda phase: names.append(phase.name))
    runner.run([Looking(), Writing()], Facts())
    assert names == ["look", "write"]


def test_only_what_was_asked_has_an_answer() -> None:
    answers = Answers([(Look("a"), 1)])
    assert answers.to(Look("a")) == 1
    with pytest.raises(KeyError) as caught:
        answers.to(Look("b"))
    assert caught.value.args == ("Look was not asked",)


def test_names_of_fault_points() -> None:
    assert (Look("a").where, Look("a").fault_point) == ("", "")
    assert Sync().fault_point == "sync"
    assert Write(3).fault_point == "write:3"


@dataclass(frozen=True, slots=True)
class Burn(Step[None]):
    after: ClassVar[frozenset[str]] = frozenset({"seen", "agreed"})


@dataclass(frozen=True)
class Counting:
    """Looks on until it has seen enough; a place that is not there is seen as nothing."""

    name: str = "count"
    needs: frozenset[str] = frozenset()
    gives: frozenset[str] = frozenset({"seen"})

    def act(self, facts: Facts) -> Talk[Facts]:
        seen: tuple[int, ...] = ()
        while sum(seen) < 7:
            try:
                seen = (*seen, (yield from ask(Look("x" * len(seen)))))
            except (MissingError, OSError):
                seen = (*seen, 1)
        return replace(facts, seen=sum(seen), done=seen)


@dataclass(frozen=True)
class Burning(Counting):
    name: str = "burn"
    needs: frozenset[str] = frozenset({"seen"})
    gives: frozenset[str] = frozenset({"burnt"})

    def act(self, facts: Facts) -> Talk[Facts]:
        try:
            yield from ask(Burn())
        except MachineOSError:  # what the runner itself refuses does not come here
            return facts
        return facts


def test_a_dialogue_hears_answers_and_refusals() -> None:
    asked: list[object] = []

    def perform(step: Step[object]) -> object:
        asked.append(step)
        if step == Look("x"):
            raise MissingError("no x")
        if step == Look("xx"):
            raise OSError("unreadable")
        return 4

    runner: Runner[Facts] = Runner(perform)
    assert runner.run([Counting()], Facts()) == Facts(10, (4, 1, 1, 4))
    assert asked == [Look("x" * count) for count in range(4)]
    assert is_dialogue(Counting())
    assert not is_dialogue(Looking())


@pytest.mark.parametrize("error", [BootError("why"), OSError("unreadable"), KeyError("ours")])
def test_what_a_dialogue_does_not_expect_ends_it(error: Exception) -> None:
    def perform(step: Step[object]) -> object:
        raise error

    phases: list[Phase[Facts] | Dialogue[Facts]] = [Looking()]
    if not isinstance(error, OSError):
        phases = [Counting()]
    with pytest.raises(type(error)) as caught:
        Runner[Facts](perform).run(phases, Facts())
    assert caught.value is error


def test_a_step_is_taken_only_by_a_phase_that_needs_what_must_hold() -> None:
    """What was given is not enough: the phase has to say it, so that the order follows from it."""
    host = Hosted()
    given = frozenset({"seen", "agreed"})
    with pytest.raises(OrderError) as caught:
        Runner[Facts](host.perform).run([Burning()], Facts(), given=given)
    assert caught.value.message == (
        "phase burn takes Burn without needing what must hold before it: agreed"
    )
    assert host.log == []
    Runner[Facts](host.perform).run([Burning(needs=given)], Facts(), given=given)
    assert host.log == ["Burn"]


def test_fault_points_in_a_dialogue() -> None:
    @dataclass(frozen=True)
    class Talking(Burning):
        def act(self, facts: Facts) -> Talk[Facts]:
            yield from ask(Write(2))
            yield from ask(Look("a"))
            return facts

    host = Hosted()
    Runner[Facts](host.perform, watch=host.log.append).run([Counting(), Talking()], Facts())
    assert host.log[-4:] == ["before write:2", "Write", "after write:2", "Look"]
