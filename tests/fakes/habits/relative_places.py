"""A registry whose uploads go on at a path that is seen from the request's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakes.registry import FakeRegistry

OF = ()


def keep(registry: FakeRegistry) -> None:
    """``Location`` is the last part of it."""
    registry.faults.location = lambda where, asked: (
        where.rpartition("/")[2] if asked.partition("?")[0].endswith("/uploads/") else where
    )
