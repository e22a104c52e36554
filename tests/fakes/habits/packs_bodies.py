"""A proxy or a store that compresses every body on its way, whatever was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakes.registry import FakeRegistry

OF = ()


def keep(registry: FakeRegistry) -> None:
    """``Content-Encoding: gzip``, and no ranges of what is packed."""
    registry.faults.packs = True
    registry.faults.ignore_range = True
