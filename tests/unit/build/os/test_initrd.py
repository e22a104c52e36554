"""The archives that the kernel unpacks: read back with cpio."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from machineos.build.os.initrd import pack
from machineos.core.run import run
from waiting import PATIENCE

pytestmark = [pytest.mark.tool("cpio"), pytest.mark.tool("zstd")]


def tree(root: Path, names: list[str]) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (root / "bin").symlink_to("usr/bin")
    (root / "init").write_text("x")
    (root / "init").chmod(0o755)
    return root


NAMES = ["usr/bin/a", "usr/lib/b c", "usr/lib/d/e", "etc/ü"]


@pytest.mark.parametrize("compress", [False, True])
def test_what_goes_in_comes_out(tmp_path: Path, compress: bool) -> None:
    output = tmp_path / "initrd.cpio.zst"
    pack(tree(tmp_path / "tree", NAMES), output, epoch=1_700_000_000, compress=compress)
    data = (
        run(["zstd", "-d", "-c", output], timeout=PATIENCE).stdout
        if compress
        else output.read_bytes()
    )
    assert data.startswith(b"070701")
    (tmp_path / "out").mkdir()
    run(["cpio", "-idm", "--quiet"], input=data, cwd=tmp_path / "out", timeout=PATIENCE)
    for name in NAMES:
        assert (tmp_path / "out" / name).read_text() == name
        assert (tmp_path / "out" / name).stat().st_mtime == 1_700_000_000
    assert (tmp_path / "out/bin").readlink() == Path("usr/bin")
    assert os.access(tmp_path / "out/init", os.X_OK)
    listing = run(["cpio", "-tvn", "--quiet"], input=data, timeout=PATIENCE).text.splitlines()
    assert all(line.split()[2:4] == ["0", "0"] for line in listing)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["initrd.cpio.zst", "out", "tree"]


def test_the_same_tree_gives_the_same_bytes(tmp_path: Path) -> None:
    """Whatever the order of making, the time, the inodes."""
    results = []
    for number, names in enumerate((NAMES, NAMES[::-1])):
        folder = tmp_path / str(number)
        (folder / "noise").mkdir(parents=True)
        for other in range(number * 5):
            (folder / f"noise/{other}").touch()
        output = folder / "out"
        pack(tree(folder / "tree", names), output, epoch=7, compress=True)
        results.append(output.read_bytes())
    assert results[0] == results[1]
