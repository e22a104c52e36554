from __future__ import annotations

from pathlib import Path

import pytest

from machineos.core.command import Command
from machineos.core.run import perform
from machineos.host.kernel.superblock import erofs_size
from machineos.host.pack import erofs


def test_the_commands() -> None:
    assert erofs.make_command(Path("t"), Path("o"), epoch=7) == Command(
        (
            "mkfs.erofs", "-zlz4hc", "-T7", "-U6d6f7300-0000-4000-8000-65726f667300", "-x1000000",
            "--quiet", "o", "t",
        ),
        3600.0,
    )  # fmt: skip
    assert erofs.unpack_command(Path("i"), Path("t")) == Command(
        ("fsck.erofs", "--extract=t", "--preserve", "-d0", "i"), 3600.0
    )


@pytest.mark.tool("mkfs.erofs")
@pytest.mark.tool("fsck.erofs")
def test_packs_and_unpacks(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "f").write_text("hello")
    perform(erofs.make_command(tree, tmp_path / "image", epoch=7))
    size = erofs_size((tmp_path / "image").read_bytes(), what="x")
    assert size == (tmp_path / "image").stat().st_size
    perform(erofs.unpack_command(tmp_path / "image", tmp_path / "again"))
    assert (tmp_path / "again/f").read_text() == "hello"
