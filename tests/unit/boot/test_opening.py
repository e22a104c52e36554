"""What volumes are on, opened beside the boot; that it opens is shown in a guest."""

from __future__ import annotations

from pathlib import Path

import pytest

from machineos.boot.opening import Opening
from machineos.core.secret import Secret
from machineos.errors import ToolError


def test_a_failure_is_said_when_it_is_waited_for_and_the_key_is_gone(tmp_path: Path) -> None:
    """Each time: nobody boots on without it."""
    key = Secret(b"k" * 32)
    opening = Opening(tmp_path / "none", key, tmp_path)
    for _ in range(2):
        with pytest.raises(ToolError, match="integritysetup"):
            opening.wait()
    assert key.wiped
