from __future__ import annotations

from pathlib import Path

import pytest

from machineos.host.kernel.superblock import erofs_size
from machineos.host.pack import erofs


@pytest.mark.tool("mkfs.erofs")
@pytest.mark.tool("fsck.erofs")
def test_packs_and_unpacks(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "f").write_text("hello")
    erofs.make(tree, tmp_path / "image", epoch=7)
    size = erofs_size((tmp_path / "image").read_bytes(), what="x")
    assert size == (tmp_path / "image").stat().st_size
    erofs.unpack(tmp_path / "image", tmp_path / "again")
    assert (tmp_path / "again/f").read_text() == "hello"
