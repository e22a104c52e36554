"""FAT images are read back with mtools."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from machineos.core.command import Command
from machineos.core.run import run
from machineos.errors import ToolError
from machineos.host.pack import fat
from machineos.host.pack.tools import make_fat
from waiting import PATIENCE

TOOLS = (pytest.mark.tool("mkfs.vfat"), pytest.mark.tool("mcopy"))
MIB = 1 << 20


def needs_tools(test: Callable[..., None]) -> Callable[..., None]:
    for mark in TOOLS:
        test = mark(test)
    return test


def test_the_size_has_room_for_the_file_system() -> None:
    assert fat.image_size(0) == 4 * MIB
    assert fat.image_size(1) == 5 * MIB
    assert fat.image_size(100 * MIB) == 106 * MIB


@pytest.mark.parametrize(
    ("size", "options"),
    [
        (36 * MIB, ("-F32",)),
        (36 * MIB - 1, ("-F16",)),
        (16 * MIB, ("-F16",)),
        (16 * MIB - 1, ("-F16", "-s1")),
    ],
)
def test_small_images_are_fat16_with_small_clusters(size: int, options: tuple[str, ...]) -> None:
    (command,) = fat.image_commands(Path("i"), label="ESP", files={}, epoch=7, size=size)
    named = ("-n", "ESP", "-i", "4d4f5321", "i")
    assert command == Command(("mkfs.vfat", "--invariant", *options, *named), 120.0)


def test_each_folder_is_made_once_before_what_is_in_it() -> None:
    files = {"a/b/one": Path("1"), "a/two": Path("2"), "three": Path("3")}
    commands = fat.image_commands(
        Path("i"), label="X", files=files, epoch=7, size=MIB, volume_id="12345678"
    )
    assert commands[0].argv[-3:] == ("-i", "12345678", "i")
    env = (("SOURCE_DATE_EPOCH", "7"), ("MTOOLS_SKIP_CHECK", "1"))
    assert commands[1:] == tuple(
        Command(tuple(words.split()), 120.0, env=env)
        for words in (
            "mmd -i i ::a",
            "mmd -i i ::a/b",
            "mcopy -i i 1 ::a/b/one",
            "mcopy -i i 2 ::a/two",
            "mcopy -i i 3 ::three",
        )
    )


@needs_tools
@pytest.mark.parametrize("mebibytes", [4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 35, 36, 64, 100])
def test_every_size_can_be_made(tmp_path: Path, mebibytes: int) -> None:
    image = tmp_path / "image"
    make_fat(image, label="X", files={}, epoch=0, size=mebibytes << 20)
    assert image.stat().st_size == mebibytes << 20


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"text\n")
    large.write_bytes(os.urandom(1 << 20) * 3)
    return {"EFI/BOOT/BOOTX64.EFI": small, "EFI/BOOT/grubx64.efi": large, "url.txt": small}


def read(image: Path, name: str) -> bytes:
    return run(["mcopy", "-i", image, f"::{name}", "-"], timeout=PATIENCE).stdout


@needs_tools
@pytest.mark.parametrize("size", [None, 40 << 20])
def test_what_went_in_comes_out(tmp_path: Path, files: dict[str, Path], size: int | None) -> None:
    image = tmp_path / "image"
    make_fat(image, label="EFIBOOT", files=files, epoch=1_700_000_000, size=size)
    for name, source in files.items():
        assert read(image, name) == source.read_bytes()
    listed = run(["mdir", "-i", image, "-/", "-b", "::"], timeout=PATIENCE).text.split()
    assert {n for n in listed if not n.endswith("/")} == {f"::/{name}" for name in files}
    assert image.stat().st_size == (size or 8 << 20)


@needs_tools
def test_the_same_input_gives_the_same_bytes(tmp_path: Path, files: dict[str, Path]) -> None:
    images = []
    for number, time in enumerate((1_000_000_000, 1_600_000_000)):
        for source in files.values():
            os.utime(source, (time, time))
        images.append(tmp_path / f"image{number}")
        make_fat(images[-1], label="X", files=files, epoch=1_700_000_000)
    assert images[0].read_bytes() == images[1].read_bytes()


@needs_tools
def test_what_does_not_fit(tmp_path: Path, files: dict[str, Path]) -> None:
    with pytest.raises(ToolError):
        make_fat(tmp_path / "image", label="X", files=files, epoch=0, size=3 << 20)
