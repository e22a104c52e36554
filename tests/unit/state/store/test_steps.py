from __future__ import annotations

from pathlib import Path

from machineos.core.digest import Digest
from machineos.state.store.steps import STAGED, StoreImage


def test_the_fault_point_names_the_image() -> None:
    digest = Digest.of(b"image")
    step = StoreImage(Path("/stage/mos"), Path("/store/mos"), digest, digest.hex)
    assert step.fault_point == f"image:{digest.hex[:12]}"


def test_only_what_is_staged_is_stored() -> None:
    assert StoreImage.after == {STAGED} == {"staged"}
