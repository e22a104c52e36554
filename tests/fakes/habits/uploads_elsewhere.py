"""A load balancer that sends every upload on once, body and all."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakes.registry import FakeRegistry, Request

OF = ()


def keep(registry: FakeRegistry) -> None:
    """307 for what changes something, and then it is taken."""

    def send_on(request: Request) -> bool:
        if request.command in {"POST", "PUT", "PATCH"} and "again=1" not in request.path:
            joint = "&" if "?" in request.path else "?"
            return request.answer(307, {"Location": f"{request.path}{joint}again=1"})
        return False

    registry.faults.instead = send_on
