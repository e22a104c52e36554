"""Waiting for a device: look, load one more driver, look again until it is late. Pure.

Most machines have controllers that nothing hangs on, and a driver finds its devices some time after
it was loaded: so it is looked again and again, up to a deadline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from machineos.boot.facts import DISK_SECONDS
from machineos.boot.steps import LoadDriver, ReadTimer, Sleep
from machineos.core.steps import Talk, ask
from machineos.errors import BootError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
PAUSE = 0.05


def load_all_drivers() -> Talk[None]:
    """Load drivers until nothing new appears. Raises: MissingError, ToolError."""
    while (yield from ask(LoadDriver())):
        pass


def wait_for(what: str, look: Callable[[], Talk[T | None]], *, hint: str) -> Talk[T]:
    """Return what ``look`` finds, looking again until it is too late; ``hint`` says what to do when
    it does not come. Raises: BootError."""
    deadline = (yield from ask(ReadTimer())) + DISK_SECONDS
    while True:
        yield from load_all_drivers()
        found = yield from look()
        if found is not None:
            return found
        if (yield from ask(ReadTimer())) > deadline:
            raise BootError(f"{what} did not appear within {DISK_SECONDS:.0f} s", hint=hint)
        yield from ask(Sleep(PAUSE))
