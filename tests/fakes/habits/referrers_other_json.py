"""A registry that answers to every path that it does not know with an object of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakes.registry import FakeRegistry, Request

OF = ()


def keep(registry: FakeRegistry) -> None:
    """No referrers API: 200, and JSON that is no index."""
    registry.faults.referrers_api = False

    def answer(request: Request) -> bool:
        if "/referrers/" in request.path:
            return request.answer(200, {"Content-Type": "application/json"}, b'{"status":"ok"}')
        return False

    registry.faults.instead = answer
