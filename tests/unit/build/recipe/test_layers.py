from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from machineos.build.recipe.compression import Compression, checked, sniff
from machineos.build.recipe.layers import uncompressed
from machineos.core.digest import Digest
from machineos.errors import ArchiveError, DigestError

DATA = bytes(range(256)) * 9000


def plain(data: bytes, kind: Compression, folder: Path, step: int = 1000) -> bytes:
    """Unpack what is of this kind."""
    chunks = (data[i : i + step] for i in range(0, len(data), step))
    with uncompressed(chunks, work=folder, what="x") as (seen, out):
        assert seen == kind
        return b"".join(out)


def test_reads_plain_and_gzip(tmp_path: Path) -> None:
    assert plain(DATA, "", tmp_path) == DATA
    assert plain(gzip.compress(DATA), "gzip", tmp_path) == DATA


def test_reads_several_gzip_members_and_padding(tmp_path: Path) -> None:
    data = gzip.compress(b"one") + gzip.compress(b"two")
    for step in (1, 7, 1000):
        assert plain(data, "gzip", tmp_path, step) == b"onetwo"
        assert plain(data + bytes(50), "gzip", tmp_path, step) == b"onetwo"


def test_refuses_a_gzip_stream_that_is_cut_off(tmp_path: Path) -> None:
    data = gzip.compress(DATA)
    with pytest.raises(ArchiveError, match="x: its gzip stream is cut off"):
        plain(data[:-1], "gzip", tmp_path)
    with pytest.raises(ArchiveError, match="x: is not a gzip stream"):
        plain(data[:-5] + b"xxxxx", "gzip", tmp_path)


def test_a_bomb_comes_out_in_small_pieces(tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(64 << 20))
    for packed in (bomb, lzma.compress(bytes(64 << 20)), bz2.compress(bytes(64 << 20))):
        with uncompressed(iter([packed]), work=tmp_path, what="x") as (_, out):
            assert len(next(out)) <= 1 << 20


def test_tells_compressions_apart() -> None:
    assert sniff(gzip.compress(b"")[:6], "x") == "gzip"
    assert sniff(b"\x28\xb5\x2f\xfd\x00\x00", "x") == "zstd"
    assert sniff(b"\x50\x2a\x4d\x18\x00\x00", "x") == "zstd"
    assert sniff(lzma.compress(b""), "x") == "xz"
    assert sniff(bz2.compress(b""), "x") == "bzip2"
    for head in (b"root/\0", b"", b"P", b"\x28\xb5"):
        assert sniff(head, "x") == ""


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\x04\x22\x4d\x18", "lz4"),
        (b"LZIP", "lzip"),
        (b"\x1f\x9d\x90", "compress"),
        (b"PK\x03\x04", "zip"),
    ],
)
def test_what_we_cannot_unpack_is_named(head: bytes, name: str, tmp_path: Path) -> None:
    with pytest.raises(
        ArchiveError, match=f"^x: is packed with {name}, which is not supp"
    ) as caught:
        plain(head + bytes(600), "", tmp_path)
    assert "gzip, zstd, xz or bzip2" in caught.value.hint


@pytest.mark.parametrize(("kind", "pack"), [("xz", lzma.compress), ("bzip2", bz2.compress)])
def test_reads_xz_and_bzip2(
    kind: Compression, pack: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    for step in (1, 7, 1000):
        data = pack(b"one") + pack(b"two")
        assert plain(data, kind, tmp_path, step) == b"onetwo"
        assert plain(data + bytes(48), kind, tmp_path, step) == b"onetwo"
    whole = pack(DATA)
    assert plain(whole, kind, tmp_path) == DATA
    with pytest.raises(ArchiveError, match=f"x: its {kind} stream is cut off"):
        plain(whole[:-1], kind, tmp_path)
    with pytest.raises(ArchiveError, match=f"x: is not a {kind} stream"):
        plain(whole[:60] + b"xxxxx" + whole[65:], kind, tmp_path)


def test_what_is_unpacked_has_the_digest_that_the_configuration_says() -> None:
    good = Digest.of(b"onetwo")
    assert list(checked(iter((b"one", b"two")), good, "x")) == [b"one", b"two"]
    assert list(checked(iter((b"other",)), None, "x")) == [b"other"]
    other = Digest.of(b"other")
    with pytest.raises(DigestError) as caught:
        list(checked(iter((b"other",)), good, "x"))
    assert caught.value.message == (
        f"x: unpacked it has the digest {other}, its configuration says {good}"
    )


def test_nothing_is_a_whole_stream_of_nothing(tmp_path: Path) -> None:
    assert plain(b"", "", tmp_path) == b""
    assert plain(gzip.compress(b"") + bytes(100), "gzip", tmp_path) == b""
