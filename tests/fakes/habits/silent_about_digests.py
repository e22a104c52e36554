"""Answers without ``Docker-Content-Digest``: proxies drop headers they do not know."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakes.registry import FakeRegistry

OF = ()


def keep(registry: FakeRegistry) -> None:
    """No answer has the header."""
    registry.faults.hides = frozenset({"Docker-Content-Digest"})
