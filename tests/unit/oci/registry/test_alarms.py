"""Calls at a time to come: made once at their time, or never when they are called off."""

from __future__ import annotations

import threading
from functools import partial
from queue import SimpleQueue

import pytest

from machineos.oci.registry.alarms import Alarms
from waiting import PATIENCE

LATER = 1000.0


@pytest.fixture
def made() -> SimpleQueue[int]:
    return SimpleQueue()


def test_calls_are_made_in_the_order_of_their_times(made: SimpleQueue[int]) -> None:
    alarms = Alarms()
    for number, seconds in ((3, 0.3), (1, 0.1), (2, 0.2), (4, LATER)):
        alarms.after(seconds, partial(made.put, number))
    assert [made.get(timeout=PATIENCE) for _ in range(3)] == [1, 2, 3]
    assert made.empty()


def test_what_is_called_off_is_not_made(made: SimpleQueue[int]) -> None:
    alarms = Alarms()
    first = alarms.after(LATER, lambda: made.put(1))
    assert first.cancel()
    assert not first.cancel()
    alarms.after(0, lambda: made.put(2))
    assert made.get(timeout=PATIENCE) == 2
    assert made.empty()


def test_what_was_made_cannot_be_called_off(made: SimpleQueue[int]) -> None:
    alarm = Alarms().after(0, lambda: made.put(1))
    assert made.get(timeout=PATIENCE) == 1
    assert not alarm.cancel()


def test_a_call_that_is_being_made_does_not_hold_up_who_calls_it_off() -> None:
    begun, go = threading.Event(), threading.Event()

    def act() -> None:
        begun.set()
        assert go.wait(PATIENCE)

    alarm = Alarms().after(0, act)
    assert begun.wait(PATIENCE)
    assert not alarm.cancel()
    go.set()


def test_one_thread_makes_all_and_ends_when_there_is_nothing_more(made: SimpleQueue[int]) -> None:
    before = {*threading.enumerate()}
    alarms = Alarms()
    many = [alarms.after(LATER, lambda: made.put(0)) for _ in range(50)]
    (thread,) = {*threading.enumerate()} - before
    assert all(alarm.cancel() for alarm in many)
    for number in (1, 2):  # also after it has ended
        alarms.after(0, partial(made.put, number))
        assert made.get(timeout=PATIENCE) == number
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert made.empty()
