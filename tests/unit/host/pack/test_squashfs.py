from __future__ import annotations

from pathlib import Path

import pytest

from machineos.core.command import Command
from machineos.core.run import perform
from machineos.host.kernel.superblock import squashfs_size
from machineos.host.pack import squashfs

OPTIONS = (
    "-noappend", "-comp", "zstd", "-xattrs", "-no-exports", "-no-progress", "-quiet",
    "-exit-on-error",
)  # fmt: skip


def test_times_are_set_unless_kept() -> None:
    assert squashfs.make_command(Path("t"), Path("o"), epoch=7) == Command(
        ("mksquashfs", "t", "o", *OPTIONS, "-all-time", "7", "-mkfs-time", "7"), 3600.0
    )
    assert squashfs.make_command(Path("t"), Path("o"), epoch=7, keep_times=True) == Command(
        ("mksquashfs", "t", "o", *OPTIONS, "-mkfs-time", "7"), 3600.0
    )


def test_a_tar_stream_has_the_mode_and_the_time_of_its_root() -> None:
    assert squashfs.make_from_tar_command(Path("o"), mode=0o1775, newest=9) == Command(
        ("mksquashfs", "-", "o", "-tar", *OPTIONS, "-root-mode", "1775"),
        3600.0,
        env=(("SOURCE_DATE_EPOCH", "9"),),
    )


def test_unpacking_is_strict() -> None:
    assert squashfs.unpack_command(Path("i"), Path("t")) == Command(
        (
            "unsquashfs", "-no-progress", "-quiet", "-strict-errors", "-no-wildcards", "-dest", "t",
            "i",
        ),
        3600.0,
    )  # fmt: skip


@pytest.mark.tool("mksquashfs")
@pytest.mark.tool("unsquashfs")
def test_packs_and_unpacks(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "f").write_text("hello")
    perform(squashfs.make_command(tree, tmp_path / "image", epoch=7))
    assert squashfs_size((tmp_path / "image").read_bytes(), what="x") > 96
    perform(squashfs.unpack_command(tmp_path / "image", tmp_path / "again"))
    assert (tmp_path / "again/f").read_text() == "hello"
    assert (tmp_path / "again/f").stat().st_mtime == 7
