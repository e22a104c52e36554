"""The referrers API is younger than most registries: it answers 404, and a tag lists them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakes.registry import FakeRegistry

OF = ("docker-registry", "GitHub", "GitLab")


def keep(registry: FakeRegistry) -> None:
    """No referrers API, no ``OCI-Subject`` header."""
    registry.faults.referrers_api = False
