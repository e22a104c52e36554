"""Amazon's answers to a part of an upload as to a thing that was made, and counts it wrongly."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakes.registry import FakeRegistry

OF = ("Amazon",)


def keep(registry: FakeRegistry) -> None:
    """201 where 202 is meant, and ``Range`` is always that of a whole piece."""
    registry.faults.patch_status = 201
    registry.faults.patch_range = "0-8388607"
