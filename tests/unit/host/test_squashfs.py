from __future__ import annotations

import struct
from pathlib import Path

import pytest

from machineos.errors import VerificationError
from machineos.host import squashfs


def header(*, magic: bytes = b"hsqs", version: tuple[int, int] = (4, 0), size: int = 4096) -> bytes:
    data = bytearray(96)
    data[:4] = magic
    struct.pack_into("<HH", data, 28, *version)
    struct.pack_into("<Q", data, 40, size)
    return bytes(data)


def test_times_are_set_unless_kept() -> None:
    argv = squashfs.argv_make(Path("t"), Path("o"), epoch=7)
    assert argv[argv.index("-all-time") + 1] == "7"
    argv = squashfs.argv_make(Path("t"), Path("o"), epoch=7, keep_times=True)
    assert "-all-time" not in argv
    assert argv[argv.index("-mkfs-time") + 1] == "7"


def test_reads_the_size() -> None:
    assert squashfs.parse_size(header(size=12345), what="x") == 12345


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not a squashfs image"),
        (header()[:95], "is not a squashfs image"),
        (header(magic=b"sqsh"), "is not a squashfs image"),
        (header(version=(3, 1)), "squashfs 3.1"),
        (header(size=95), "claims 95 bytes"),
    ],
)
def test_refuses_other_superblocks(data: bytes, message: str) -> None:
    with pytest.raises(VerificationError, match=f"x: .*{message}"):
        squashfs.parse_size(data, what="x")


@pytest.mark.tool("mksquashfs")
@pytest.mark.tool("unsquashfs")
def test_packs_and_unpacks(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "f").write_text("hello")
    squashfs.make(tree, tmp_path / "image", epoch=7)
    assert squashfs.parse_size((tmp_path / "image").read_bytes(), what="x") > 96
    squashfs.unpack(tmp_path / "image", tmp_path / "again")
    assert (tmp_path / "again/f").read_text() == "hello"
    assert (tmp_path / "again/f").stat().st_mtime == 7
