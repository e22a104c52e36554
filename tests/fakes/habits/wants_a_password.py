"""Nobody comes in without a password, sent with each request."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakes.registry import FakeRegistry

OF = ("Amazon", "Artifactory")


def keep(registry: FakeRegistry) -> None:
    """401 with a challenge that a password answers."""
    registry.faults.auth = "basic"
