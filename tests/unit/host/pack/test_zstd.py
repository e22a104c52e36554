from __future__ import annotations

from pathlib import Path

import pytest

from machineos.core.run import run
from machineos.errors import ArchiveError
from machineos.host.pack import zstd
from waiting import PATIENCE

pytestmark = pytest.mark.tool("zstd")
DATA = bytes(range(256)) * 5000


def packed(folder: Path) -> Path:
    path = folder / "data.zst"
    path.write_bytes(run(["zstd", "-c", "-q"], input=DATA, timeout=PATIENCE).stdout)
    return path


def test_decompresses(tmp_path: Path) -> None:
    with zstd.decompressed(packed(tmp_path), what="x") as chunks:
        assert b"".join(chunks) == DATA


def test_a_stream_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ArchiveError, match="x: is not a whole zstd stream"):
        with zstd.decompressed(path, what="x") as chunks:
            b"".join(chunks)


def test_stopping_early_ends_the_program(tmp_path: Path) -> None:
    with zstd.decompressed(packed(tmp_path), what="x") as chunks:
        assert next(chunks)


def test_spools_a_stream(tmp_path: Path) -> None:
    with zstd.spooled((b"a", b"b"), tmp_path) as path:
        assert path.read_bytes() == b"ab"
    assert list(tmp_path.iterdir()) == []
