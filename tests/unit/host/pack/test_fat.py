"""FAT images are read back with mtools."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from machineos.core.run import run
from machineos.errors import ToolError
from machineos.host.pack.fat import argv_make, make_image
from waiting import PATIENCE

pytestmark = [pytest.mark.tool("mkfs.vfat"), pytest.mark.tool("mcopy")]


def test_argv() -> None:
    common = ["-n", "ESP", "-i", "4d4f5321", "i"]
    for size, options in ((40 << 20, ["-F32"]), (16 << 20, ["-F16"]), (4 << 20, ["-F16", "-s1"])):
        argv = argv_make(Path("i"), label="ESP", size=size, volume_id="4d4f5321")
        assert argv == ["mkfs.vfat", "--invariant", *options, *common]


@pytest.mark.parametrize("mebibytes", [4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 35, 36, 64, 100])
def test_every_size_can_be_made(tmp_path: Path, mebibytes: int) -> None:
    image = tmp_path / "image"
    make_image(image, label="X", files={}, epoch=0, size=mebibytes << 20)
    assert image.stat().st_size == mebibytes << 20


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"text\n")
    large.write_bytes(os.urandom(1 << 20) * 3)
    return {"EFI/BOOT/BOOTX64.EFI": small, "EFI/BOOT/grubx64.efi": large, "url.txt": small}


def read(image: Path, name: str) -> bytes:
    return run(["mcopy", "-i", image, f"::{name}", "-"], timeout=PATIENCE).stdout


@pytest.mark.parametrize("size", [None, 40 << 20])
def test_what_went_in_comes_out(tmp_path: Path, files: dict[str, Path], size: int | None) -> None:
    image = tmp_path / "image"
    make_image(image, label="EFIBOOT", files=files, epoch=1_700_000_000, size=size)
    for name, source in files.items():
        assert read(image, name) == source.read_bytes()
    listed = run(["mdir", "-i", image, "-/", "-b", "::"], timeout=PATIENCE).text.split()
    assert {n for n in listed if not n.endswith("/")} == {f"::/{name}" for name in files}
    assert image.stat().st_size == (size or 8 << 20)


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, files: dict[str, Path]) -> None:
    images = []
    for number, time in enumerate((1_000_000_000, 1_600_000_000)):
        for source in files.values():
            os.utime(source, (time, time))
        images.append(tmp_path / f"image{number}")
        make_image(images[-1], label="X", files=files, epoch=1_700_000_000)
    assert images[0].read_bytes() == images[1].read_bytes()


def test_what_does_not_fit(tmp_path: Path, files: dict[str, Path]) -> None:
    with pytest.raises(ToolError):
        make_image(tmp_path / "image", label="X", files=files, epoch=0, size=3 << 20)
