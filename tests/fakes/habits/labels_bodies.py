"""A store that says of every blob that it came compressed, since that is what it looked like when
it was pushed; the bytes are as they were."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakes.registry import FakeRegistry

OF = ("Pulp",)


def keep(registry: FakeRegistry) -> None:
    """``Content-Encoding: x-gzip`` and nothing behind it."""
    registry.faults.encoding = "x-gzip"
