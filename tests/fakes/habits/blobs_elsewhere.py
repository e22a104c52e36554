"""Blobs are kept by somebody else, on another host, who refuses whoever says who he is in two ways
at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakes.registry import FakeRegistry, Request

OF = ("GitHub", "Google", "Amazon", "Docker Hub", "Quay", "GitLab")


def keep(registry: FakeRegistry) -> None:
    """307 to another name of this machine; 400 there with ``Authorization``."""

    def lead(request: Request) -> bool:
        is_blob = request.command == "GET" and "/blobs/sha256:" in request.path
        if not is_blob:
            return False
        if request.header("Host").startswith("localhost:"):
            return bool(request.header("Authorization")) and request.answer(400)
        port = request.header("Host").rpartition(":")[2]
        return request.answer(307, {"Location": f"http://localhost:{port}{request.path}"})

    registry.faults.open_host = "localhost:"  # the way there is a secret itself
    registry.faults.instead = lead
