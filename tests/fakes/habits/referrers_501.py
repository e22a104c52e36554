"""A registry that says outright that it has no referrers API: 501."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakes.registry import FakeRegistry

OF = ()


def keep(registry: FakeRegistry) -> None:
    """No referrers API: 501."""
    registry.faults.referrers_api = False
    registry.faults.referrers_status = 501
