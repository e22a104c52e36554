from __future__ import annotations

from pathlib import Path

import pytest

from machineos.host.kernel.superblock import squashfs_size
from machineos.host.pack import squashfs


def test_times_are_set_unless_kept() -> None:
    argv = squashfs.argv_make(Path("t"), Path("o"), epoch=7)
    assert argv[argv.index("-all-time") + 1] == "7"
    argv = squashfs.argv_make(Path("t"), Path("o"), epoch=7, keep_times=True)
    assert "-all-time" not in argv
    assert argv[argv.index("-mkfs-time") + 1] == "7"


@pytest.mark.tool("mksquashfs")
@pytest.mark.tool("unsquashfs")
def test_packs_and_unpacks(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "f").write_text("hello")
    squashfs.make(tree, tmp_path / "image", epoch=7)
    assert squashfs_size((tmp_path / "image").read_bytes(), what="x") > 96
    squashfs.unpack(tmp_path / "image", tmp_path / "again")
    assert (tmp_path / "again/f").read_text() == "hello"
    assert (tmp_path / "again/f").stat().st_mtime == 7
