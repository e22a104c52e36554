"""A repository comes into being by a push: nobody gets a token to read it before."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakes.registry import FakeRegistry

OF = ("Quay", "Harbor")


def keep(registry: FakeRegistry) -> None:
    """Tokens, and 403 for one that is to read what is not there."""
    registry.faults.auth = "bearer"
    registry.faults.creates_on_push = True
