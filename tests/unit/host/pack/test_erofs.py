from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from machineos.core.run import run
from machineos.errors import ArchiveError
from machineos.host.kernel.superblock import erofs_size
from machineos.host.pack import erofs
from machineos.host.pack.caller import boxed_output, container_ids
from machineos.host.pack.container import Bind
from waiting import PATIENCE

OPTIONS = ["-zlz4hc", "-T7", "-U6d6f7300-0000-4000-8000-65726f667300", "-x1000000", "--quiet"]


def test_owners_are_those_of_the_tree_or_root() -> None:
    argv = erofs.argv_make(Path("t"), Path("o"), epoch=7, owners=True)
    assert argv == ["mkfs.erofs", *OPTIONS, "o", "t"]
    argv = erofs.argv_make(Path("t"), Path("o"), epoch=7, owners=False)
    assert argv == ["mkfs.erofs", *OPTIONS, "--all-root", "o", "t"]


def test_what_is_unpacked_is_bounded() -> None:
    box = erofs.tar_box(Path("i"), size=10, members=3, owners=True)
    assert box.scratch == (10, 3)
    assert box.binds == (Bind(Path("i"), "/image"),)
    assert box.network == "none"


def packed(tmp_path: Path, text: str) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "f").write_text(text)
    run(
        erofs.argv_make(tree, tmp_path / "image", epoch=7, owners=False),
        timeout=PATIENCE,
    )
    return tmp_path / "image"


def unpacked(image: Path, *, size: int) -> bytes:
    box = erofs.tar_box(image, size=size, members=100, owners=True)
    with boxed_output(box, container_ids("a test"), problem="x cannot be unpacked") as chunks:
        return b"".join(chunks)


@pytest.mark.system
@pytest.mark.tool("mkfs.erofs")
@pytest.mark.tool("fsck.erofs")
def test_packs_and_unpacks(tmp_path: Path) -> None:
    image = packed(tmp_path, "hello")
    assert erofs_size(image.read_bytes(), what="x") == image.stat().st_size
    with tarfile.open(fileobj=io.BytesIO(unpacked(image, size=1 << 20))) as archive:
        assert archive.getnames() == [".", "./f"]
        assert (archive.getmember("./f").uid, archive.getmember("./f").mtime) == (0, 7)


@pytest.mark.system
@pytest.mark.tool("mkfs.erofs")
@pytest.mark.tool("fsck.erofs")
def test_more_than_was_allowed_is_not_unpacked(tmp_path: Path) -> None:
    image = packed(tmp_path, "x" * (4 << 20))
    with pytest.raises(
        ArchiveError, match=r"(?s)x cannot be unpacked: .*it expands to more than is allowed"
    ):
        unpacked(image, size=1 << 20)


@pytest.mark.system
@pytest.mark.tool("mkfs.erofs")
@pytest.mark.tool("fsck.erofs")
def test_set_user_id_bits_are_seen_beside_owners(tmp_path: Path) -> None:
    """fsck.erofs gives owners after modes, which takes the bits away."""
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/a b").write_text("x")
    os.chown(tree / "bin/a b", 5, 6)
    (tree / "bin/a b").chmod(0o4755)
    argv = erofs.argv_make(tree, tmp_path / "image", epoch=7, owners=True)
    run(argv, timeout=PATIENCE)
    plain = unpacked(tmp_path / "image", size=1 << 20)
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        member = archive.getmember("./bin/a b")
    assert (member.mode, member.uid, member.gid) == (0o4755, 5, 6)
