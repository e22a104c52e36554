"""A registry that knows the path of the referrers API for another method: 405."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakes.registry import FakeRegistry

OF = ()


def keep(registry: FakeRegistry) -> None:
    """No referrers API: 405."""
    registry.faults.referrers_api = False
    registry.faults.referrers_status = 405
