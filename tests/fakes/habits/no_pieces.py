"""Google's takes no piece at all, only one request for all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakes.registry import FakeRegistry, Request

OF = ("Google", "Pulp")


def keep(registry: FakeRegistry) -> None:
    """What says where it begins is refused."""

    def refuse(request: Request) -> bool:
        if request.command == "PATCH" and request.header("Content-Range"):
            return request.answer(416)
        return False

    registry.faults.instead = refuse
