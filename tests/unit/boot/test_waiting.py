"""Waiting for a device, on a clock on which only sleeping takes time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from machineos.boot.steps import LoadDriver, ReadTimer, Sleep
from machineos.boot.waiting import PAUSE, load_all_drivers, wait_for
from machineos.core.steps import Step, Talk
from machineos.errors import BootError


class World:
    """Answers steps; ``drivers`` is how many can still be loaded."""

    def __init__(self, drivers: int = 0) -> None:
        self.time = 100.0
        self.drivers = drivers
        self.steps: list[Step[object]] = []

    def answer(self, step: Step[object]) -> object:
        self.steps.append(step)
        match step:
            case ReadTimer():
                return self.time
            case Sleep(seconds):
                self.time += seconds
                return None
            case LoadDriver():
                self.drivers -= 1
                return self.drivers >= 0
            case _:
                raise AssertionError(step)


def listen(world: World, talk: Talk[object]) -> object:
    answer: object = None
    while True:
        try:
            step = talk.send(answer)
        except StopIteration as end:
            return end.value
        answer = world.answer(step)


def names(world: World) -> list[str]:
    return [type(step).__name__ for step in world.steps]


def looking(found: Callable[[], str | None]) -> Callable[[], Talk[str | None]]:
    def look() -> Talk[str | None]:
        yield from ()
        return found()

    return look


@pytest.mark.parametrize("count", [0, 1, 3])
def test_drivers_are_loaded_until_there_is_none(count: int) -> None:
    world = World(count)
    listen(world, load_all_drivers())
    assert names(world) == ["LoadDriver"] * (count + 1)


def test_what_is_there_is_found_at_once() -> None:
    world = World(2)
    assert listen(world, wait_for("it", looking(lambda: "it"), hint="")) == "it"
    assert names(world) == ["ReadTimer", *["LoadDriver"] * 3]


def test_what_is_empty_but_there_is_found() -> None:
    assert listen(World(), wait_for("it", looking(lambda: ""), hint="")) == ""


def test_it_is_looked_again_after_each_pause() -> None:
    world = World()
    found = looking(lambda: "it" if world.time > 101 else None)
    assert listen(world, wait_for("it", found, hint="")) == "it"
    assert 101 < world.time <= 101 + 2 * PAUSE
    assert {step.seconds for step in world.steps if isinstance(step, Sleep)} == {PAUSE} == {0.05}
    assert names(world)[1:5] == ["LoadDriver", "ReadTimer", "Sleep", "LoadDriver"]


def test_the_deadline_itself_is_not_too_late() -> None:
    """At just twenty seconds it is waited once more, after that no more."""
    world = World()

    def found() -> str | None:
        world.time = 120.0 if world.time < 120 else world.time
        return "it" if world.time > 120 else None

    assert listen(world, wait_for("it", looking(found), hint="")) == "it"
    world = World()
    with pytest.raises(BootError) as caught:
        listen(world, wait_for("a disk", looking(lambda: None), hint="attach it"))
    assert caught.value.message == "a disk did not appear within 20 s"
    assert caught.value.hint == "attach it"
    assert 120 < world.time < 120.1
