"""A registry that wants pieces of a size of its own, and no large request."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakes.registry import FakeRegistry, Request


_LEAST = 100_000

OF = ()


def keep(registry: FakeRegistry) -> None:
    """``OCI-Chunk-Min-Length``, and 413 for what is sent in one request."""

    def refuse(request: Request) -> bool:
        if request.command == "PATCH" and not request.header("Content-Range"):
            return request.answer(413)
        return False

    registry.faults.instead = refuse
    registry.faults.says_at_start = {"OCI-Chunk-Min-Length": str(_LEAST)}
