"""A registry whose router takes the referrers API for a name that is not allowed: 400."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakes.registry import FakeRegistry

OF = ("Quay",)


def keep(registry: FakeRegistry) -> None:
    """No referrers API: 400."""
    registry.faults.referrers_api = False
    registry.faults.referrers_status = 400
