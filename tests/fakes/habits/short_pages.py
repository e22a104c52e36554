"""Lists come in pages of two, whatever number was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakes.registry import FakeRegistry

OF = ()


def keep(registry: FakeRegistry) -> None:
    """Two entries in an answer, and a link to the next."""
    registry.faults.page = 2
