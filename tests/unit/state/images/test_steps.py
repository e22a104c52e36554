from __future__ import annotations

from pathlib import Path

from machineos.core.digest import Digest
from machineos.state.images.steps import MountImage


def test_a_mount_is_forgotten_by_itself() -> None:
    step = MountImage(Path("/stage/mos"), Digest.of(b"x"), b"signature", Path("/m"))
    assert step.fault_point == ""
    assert "signature=" not in repr(step)
