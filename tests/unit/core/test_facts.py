"""Facts by name, and phases that are held to what they say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest

from machineos.core.facts import Fact, Facts, Part
from machineos.core.steps import Runner, Step, Talk, ask
from machineos.errors import OrderError

SIZE: Fact[int] = Fact("size")
NAME: Fact[str] = Fact("name")
DONE = "done"


@dataclass(frozen=True)
class Look(Step[int]):
    point: ClassVar[str] = ""


def test_a_fact_is_its_name() -> None:
    assert SIZE == "size"
    assert {SIZE, "size"} == {"size"}


def test_values_come_back() -> None:
    facts = Facts().plus(SIZE, 3).plus(NAME, "x")
    assert (facts[SIZE], facts[NAME]) == (3, "x")
    assert facts.names() == {SIZE, NAME}
    assert facts.plus(SIZE, 4)[SIZE] == 4
    assert facts[SIZE] == 3


def test_what_is_not_known() -> None:
    with pytest.raises(OrderError) as caught:
        Facts()[SIZE]
    assert caught.value.message == "nothing is known here of: size"


def test_a_part_of_them() -> None:
    facts = Facts().plus(SIZE, 3).plus(NAME, "x")
    assert facts.only({SIZE, DONE}).names() == {SIZE}
    assert facts.only(()).names() == frozenset()


def test_two_together() -> None:
    facts = Facts().plus(SIZE, 3).plus(NAME, "x").merged(Facts().plus(SIZE, 4))
    assert (facts[SIZE], facts[NAME]) == (4, "x")


def test_what_was_given_to_make_them_is_no_part_of_them() -> None:
    known: dict[str, object] = {SIZE: 3}
    facts = Facts(known)
    known[SIZE] = 4
    assert facts[SIZE] == 3


def run(part: Part, facts: Facts) -> Facts:
    runner: Runner[Facts] = Runner(lambda _step: 7)
    return runner.run([part], facts, given=facts.names())


def measure(facts: Facts) -> Talk[Facts]:
    return Facts().plus(SIZE, len(facts[NAME]) + (yield from ask(Look())))


def test_a_phase_adds_what_it_learnt() -> None:
    part = Part("measure", frozenset({NAME}), frozenset({SIZE, DONE}), measure)
    facts = run(part, Facts().plus(NAME, "abc"))
    assert facts[SIZE] == 10
    assert facts.names() == {NAME, SIZE}


def test_a_phase_does_not_see_what_it_does_not_need() -> None:
    part = Part("measure", frozenset(), frozenset({SIZE}), measure)
    with pytest.raises(OrderError, match="nothing is known here of: name"):
        run(part, Facts().plus(NAME, "abc"))


@pytest.mark.parametrize("gives", [frozenset({DONE}), frozenset({SIZE, Fact("other")})])
def test_a_phase_gives_what_it_says(gives: frozenset[str]) -> None:
    part = Part("measure", frozenset({NAME}), gives, measure)
    with pytest.raises(OrderError) as caught:
        run(part, Facts().plus(NAME, "abc"))
    assert caught.value.message == "phase measure did not give what it says"
