"""A registry that shows its page for people on every path that it does not know."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakes.registry import FakeRegistry, Request

OF = ("Google",)


def keep(registry: FakeRegistry) -> None:
    """No referrers API: 200, and HTML."""
    registry.faults.referrers_api = False

    def page(request: Request) -> bool:
        if "/referrers/" in request.path:
            return request.answer(200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>")
        return False

    registry.faults.instead = page
