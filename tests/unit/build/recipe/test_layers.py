from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from machineos.build.recipe.compression import Compression, checked, sniff
from machineos.build.recipe.layers import uncompressed
from machineos.core.digest import Digest
from machineos.errors import ArchiveError, DigestError

DATA = bytes(range(256)) * 9000


def plain(data: bytes, kind: Compression, folder: Path, step: int = 1000) -> bytes:
    chunks = (data[i : i + step] for i in range(0, len(data), step))
    with uncompressed(chunks, kind, work=folder, what="x") as out:
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
    with uncompressed(iter([bomb]), "gzip", work=tmp_path, what="x") as out:
        assert len(next(out)) <= 1 << 20


def test_tells_compressions_apart() -> None:
    assert sniff(gzip.compress(b"")[:6]) == "gzip"
    assert sniff(b"\x28\xb5\x2f\xfd\x00\x00") == "zstd"
    assert sniff(b"root/\0") == ""


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
    assert plain(b"", "gzip", tmp_path) == b""
    assert plain(bytes(100), "gzip", tmp_path) == b""


def test_what_is_no_gzip_says_what_zlib_says(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"^x: is not a gzip stream: Error -3 "):
        plain(b"plain text", "gzip", tmp_path)
