from __future__ import annotations

from pathlib import Path

import pytest

from machineos.errors import MissingError, ToolError
from machineos.host.kernel import load_module


def test_what_is_no_module(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="does not exist"):
        load_module(tmp_path / "none.ko")
    path = tmp_path / "bad.ko"
    path.write_bytes(b"not a module")
    with pytest.raises(ToolError, match=r"bad\.ko: E[A-Z]+"):
        load_module(path)
