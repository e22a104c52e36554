"""Profiles go to the kernel as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from machineos.errors import BootError, ToolError
from machineos.host.kernel.apparmor import load


def test_they_are_written_whole(tmp_path: Path) -> None:
    (tmp_path / "apparmor").mkdir()
    (tmp_path / "apparmor/.load").write_bytes(b"")
    load(b"\x04\x08compiled", securityfs=tmp_path)
    assert (tmp_path / "apparmor/.load").read_bytes() == b"\x04\x08compiled"


def test_a_kernel_that_refuses(tmp_path: Path) -> None:
    (tmp_path / "apparmor/.load").mkdir(parents=True)
    with pytest.raises(ToolError, match="refuses the AppArmor profiles: EISDIR"):
        load(b"x", securityfs=tmp_path)


def test_a_kernel_without_apparmor(tmp_path: Path) -> None:
    with pytest.raises(BootError, match="without AppArmor"):
        load(b"x", securityfs=tmp_path)
