"""A registry that answers with lists of referrers, and does not say that they are any."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakes.registry import FakeRegistry

OF = ()


def keep(registry: FakeRegistry) -> None:
    """An index as ``application/json``."""
    registry.faults.referrers_type = "application/json"
