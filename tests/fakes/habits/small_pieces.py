"""GitHub's refuses a piece over 4 MiB, and takes a blob of any size in one request; here the
limit is lower."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakes.registry import FakeRegistry, Request


_MOST = 4096

OF = ("GitHub",)


def keep(registry: FakeRegistry) -> None:
    """Pieces are small or refused."""

    def refuse(request: Request) -> bool:
        piece = request.command == "PATCH" and request.header("Content-Range")
        if piece and int(request.header("Content-Length") or 0) > _MOST:
            return request.answer(416)
        return False

    registry.faults.instead = refuse
