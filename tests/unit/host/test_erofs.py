from __future__ import annotations

import struct
from pathlib import Path

import pytest

from machineos.errors import VerificationError
from machineos.host import erofs


def header(*, magic: int = 0xE0F5E1E2, bits: int = 12, blocks: int = 3) -> bytes:
    data = bytearray(erofs.HEADER)
    struct.pack_into("<I", data, 1024, magic)
    data[1024 + 12] = bits
    struct.pack_into("<I", data, 1024 + 36, blocks)
    return bytes(data)


def test_reads_the_size() -> None:
    assert erofs.parse_size(header(), what="x") == 3 * 4096


@pytest.mark.parametrize(
    "data",
    [b"", header()[:-1], header(magic=1), header(bits=40), header(bits=0), header(blocks=0)],
)
def test_refuses_other_superblocks(data: bytes) -> None:
    with pytest.raises(VerificationError, match="x: "):
        erofs.parse_size(data, what="x")


@pytest.mark.tool("mkfs.erofs")
@pytest.mark.tool("fsck.erofs")
def test_packs_and_unpacks(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "f").write_text("hello")
    erofs.make(tree, tmp_path / "image", epoch=7)
    size = erofs.parse_size((tmp_path / "image").read_bytes(), what="x")
    assert size == (tmp_path / "image").stat().st_size
    erofs.unpack(tmp_path / "image", tmp_path / "again")
    assert (tmp_path / "again/f").read_text() == "hello"
