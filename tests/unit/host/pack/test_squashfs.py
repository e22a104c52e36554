from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from machineos.core.command import Command
from machineos.core.run import run
from machineos.errors import ArchiveError
from machineos.host.kernel.superblock import squashfs_size
from machineos.host.pack import squashfs
from machineos.host.pack.caller import boxed_output, container_ids
from waiting import PATIENCE

OPTIONS = [
    "-noappend", "-comp", "zstd", "-xattrs", "-no-exports", "-no-progress", "-quiet",
    "-exit-on-error",
]  # fmt: skip


def argv(*, keep_times: bool, owners: bool) -> list[str]:
    return squashfs.argv_make(Path("t"), Path("o"), epoch=7, keep_times=keep_times, owners=owners)


def test_times_are_set_unless_kept_and_owners_are_root_unless_kept() -> None:
    start = ["mksquashfs", "t", "o", *OPTIONS]
    assert argv(keep_times=False, owners=True) == [*start, "-all-time", "7", "-mkfs-time", "7"]
    assert argv(keep_times=True, owners=True) == [*start, "-mkfs-time", "7"]
    assert argv(keep_times=True, owners=False) == [*start, "-all-root", "-mkfs-time", "7"]


def test_a_tar_stream_has_the_mode_and_the_time_of_its_root() -> None:
    assert squashfs.make_from_tar_command(Path("o"), mode=0o1775, newest=9) == Command(
        ("mksquashfs", "-", "o", "-tar", *OPTIONS, "-root-mode", "1775"),
        3600.0,
        env=(("SOURCE_DATE_EPOCH", "9"),),
    )


@pytest.mark.system
@pytest.mark.tool("mksquashfs")
@pytest.mark.tool("sqfs2tar")
def test_packs_and_unpacks(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "f").write_text("hello")
    os.setxattr(tree / "f", "user.x", b"y")
    os.mknod(tree / "gone", 0o020600, os.makedev(0, 0))
    os.chown(tree / "gone", 5, 6)
    make = squashfs.argv_make(tree, tmp_path / "image", epoch=7, keep_times=False, owners=True)
    run(make, timeout=PATIENCE)
    assert squashfs_size((tmp_path / "image").read_bytes(), what="x") > 96
    with tarfile.open(fileobj=io.BytesIO(unpacked(tmp_path / "image"))) as archive:
        assert [name.strip("./") for name in archive.getnames()] == ["", "f", "gone"]
        _, file, gone = archive.getmembers()
        assert (file.mtime, file.pax_headers["SCHILY.xattr.user.x"]) == (7, "y")
        assert (gone.uid, gone.gid, gone.ischr()) == (5, 6, True)


@pytest.mark.system
@pytest.mark.tool("sqfs2tar")
def test_what_is_no_squashfs_says_so(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"hsqs" + bytes(8192))
    with pytest.raises(ArchiveError, match=r"x cannot be unpacked: ."):
        unpacked(tmp_path / "image")


def unpacked(image: Path) -> bytes:
    box = squashfs.tar_box(image)
    with boxed_output(box, container_ids("a test"), problem="x cannot be unpacked") as chunks:
        return b"".join(chunks)
