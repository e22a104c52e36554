"""What registries do differently from the letter of the specification, and must work all the same.

Each module is one habit: ``keep(registry)`` gives it to a fake registry, ``OF`` names the products
that were reported to have it, in one version or another. The contract of ``Repository`` is run
against each habit, and against each product with all that it has (``docs/compatibility.md`` is made
of them). They are found, not listed: a habit that somebody met is added by adding its file here.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fakes.registry import FakeRegistry, Request

# Run for real, where it is installed.
REAL = "docker-registry"


class Habit(Protocol):
    """A module of this folder."""

    OF: tuple[str, ...]

    def keep(self, registry: FakeRegistry) -> None:
        """Give the habit to a registry."""
        ...


def habits() -> dict[str, Habit]:
    """Return the modules by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: cast("Habit", import_module(f"{__name__}.{name}")) for name in names}


def products() -> dict[str, tuple[str, ...]]:
    """Return the products that are played, and the names of what they have."""
    known = habits()
    names = sorted({name for habit in known.values() for name in habit.OF} - {REAL}, key=str.lower)
    return {
        name: tuple(habit for habit, module in known.items() if name in module.OF) for name in names
    }


def keep_all(registry: FakeRegistry, names: Iterable[str]) -> None:
    """Give a registry several habits at once; of each, what it does instead of an answer."""
    known = habits()
    acts = [act for name in names if (act := _act(registry, known[name])) is not None]
    registry.faults.instead = lambda request: any(act(request) for act in acts)


def _act(registry: FakeRegistry, habit: Habit) -> Callable[[Request], bool] | None:
    registry.faults.instead = None
    habit.keep(registry)
    return registry.faults.instead
