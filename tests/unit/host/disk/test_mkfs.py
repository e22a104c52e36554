from __future__ import annotations

from pathlib import Path

import pytest

from machineos.core.run import run
from machineos.host.disk.blockdev import volume_label
from machineos.host.disk.mkfs import make_ext4, make_fat32
from waiting import PATIENCE


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    return path


@pytest.mark.tool("mkfs.ext4")
def test_ext4(image: Path) -> None:
    make_ext4(image, label="machine-store")
    fields = dict(
        line.split(":", 1)
        for line in run(["dumpe2fs", "-h", image], timeout=PATIENCE).text.splitlines()
        if ":" in line
    )
    assert fields["Filesystem volume name"].strip() == "machine-store"
    assert {"metadata_csum", "64bit", "extent"} <= set(fields["Filesystem features"].split())
    assert fields["Reserved block count"].strip() == "0"
    run(["e2fsck", "-fn", image], timeout=60)


@pytest.mark.tool("mkfs.vfat")
def test_fat32(image: Path) -> None:
    make_fat32(image, label="ESP")
    assert volume_label(image) == "ESP"
    assert image.read_bytes()[0x52:0x57] == b"FAT32"
