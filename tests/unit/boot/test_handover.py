"""The document for mosd, from what was verified."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

from machineos.boot.facts import Generation
from machineos.boot.phases.handover import make_handover
from machineos.core.word import DocumentId
from machineos.document.model.names import ProductName
from machineos.document.state.system import System


def test_a_generation_is_named_by_the_manifest_that_came_last() -> None:
    first, second, last = (DocumentId(digit * 64) for digit in "abc")
    system = System(ProductName("p"), UUID(int=1), (), (), (first, second, last))
    made = make_handover(Generation(system, {}), (), store=Path("/store"), volumes_key=bytes(32))
    assert made.generation == last
    assert (made.product, made.store, made.volumes_key) == ("p", "/store", "00" * 32)
    assert not made.services
    assert not made.volumes
