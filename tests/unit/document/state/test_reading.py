"""Reading the configuration store: plain files of one folder only, each bounded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from machineos.document.state.reading import folder_reader
from machineos.errors import DocumentError, MissingError


def test_files_of_the_folder_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"data")
    read = folder_reader(tmp_path)
    assert read("a", 4) == b"data"
    with pytest.raises(DocumentError, match="larger than 3 bytes"):
        read("a", 3)
    with pytest.raises(MissingError):
        read("b", 4)


@pytest.mark.parametrize("name", ["../a", "", ".", "..", "a/b", "/etc/passwd", "a\0"])
def test_nothing_else_is(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is not a file name"):
        folder_reader(tmp_path)(name, 10)


def test_links_and_fifos_are_not_files(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo"):
        with pytest.raises(DocumentError):
            folder_reader(tmp_path)(name, 1 << 20)
