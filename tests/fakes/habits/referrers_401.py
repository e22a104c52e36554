"""A proxy that lets nobody to paths that it does not know, and does not say how one gets in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakes.registry import FakeRegistry

OF = ("Harbor",)


def keep(registry: FakeRegistry) -> None:
    """No referrers API: 401 without a challenge."""
    registry.faults.referrers_api = False
    registry.faults.referrers_status = 401
