"""Nobody comes in without a token of the token service, whose name it says itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakes.registry import FakeRegistry

OF = ("GitHub", "Google", "GitLab", "Docker Hub", "Quay", "Harbor")


def keep(registry: FakeRegistry) -> None:
    """401 with a challenge that a token answers."""
    registry.faults.auth = "bearer"
