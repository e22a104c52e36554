"""The machine in memory does what the real one does; tests/unit/service/system has the real one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from contracts.service import CONTRACT
from fakes.serviceplace import MemoryPlace

if TYPE_CHECKING:
    from collections.abc import Callable

    from contracts.place import Place


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
def test_memory(check: Callable[[Place], None]) -> None:
    place = MemoryPlace()
    before = place.host.persistent
    check(place)
    assert place.host.mounts == {}
    assert place.host.files == {}
    assert place.host.persistent == before
