"""A registry that has nothing of the kind that was asked for: 406."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakes.registry import FakeRegistry

OF = ("Artifactory",)


def keep(registry: FakeRegistry) -> None:
    """No referrers API: 406."""
    registry.faults.referrers_api = False
    registry.faults.referrers_status = 406
