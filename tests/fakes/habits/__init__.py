"""What registries do differently from the letter of the specification, and must work all the same.

Each module is one habit: ``keep(registry)`` gives it to a fake registry, and the contract of
``Repository`` is run against it (``tests/unit/oci/model/test_repository.py``). They are found, not
listed: a habit that somebody met is added by adding its file here.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from fakes.registry import FakeRegistry


class Habit(Protocol):
    """A module of this folder."""

    def keep(self, registry: FakeRegistry) -> None:
        """Give the habit to a registry."""
        ...


def habits() -> dict[str, Habit]:
    """Return the modules by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: cast("Habit", import_module(f"{__name__}.{name}")) for name in names}
