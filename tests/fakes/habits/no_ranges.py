"""``Range`` is ignored: every answer begins at the first byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakes.registry import FakeRegistry

OF = ()


def keep(registry: FakeRegistry) -> None:
    """Always 200, and all of it."""
    registry.faults.ignore_range = True
