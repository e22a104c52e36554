"""Media that firmware boots: read back as ISO, as FAT, and as a partition table."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from machineos.build.media.medium import build_medium
from machineos.core.run import run
from machineos.document.between.medium import parse_index
from machineos.host.disk.blockdev import volume_label
from machineos.host.pack.xorriso import make_command
from machineos.oci.layout.folder import LayoutRegistry
from unit.oci.samples import put_image
from waiting import PATIENCE

pytestmark = [
    pytest.mark.tool("xorriso"), pytest.mark.tool("mkfs.vfat"), pytest.mark.tool("mcopy"),
]  # fmt: skip
EPOCH = 1_700_000_000


@pytest.fixture
def binaries(tmp_path: Path) -> tuple[Path, Path]:
    shim, kernel = tmp_path / "shim.efi", tmp_path / "kernel.efi"
    shim.write_bytes(b"MZ shim" * 1000)
    kernel.write_bytes(b"MZ kernel" * 100_000)
    return shim, kernel


def build(
    binaries: tuple[Path, Path],
    output: Path,
    *,
    live: str = "",
    install: str = "",
    fill: Callable[[LayoutRegistry], None] | None = None,
) -> Path:
    build_medium(*binaries, output, epoch=EPOCH, live=live, install=install, fill=fill)
    return output


def test_argv_has_no_date_of_today() -> None:
    command = make_command(Path("tree"), "esp", Path("out"), label="L", epoch=EPOCH)
    assert "--modification-date=2023111422132000" in command.argv


def test_firmware_finds_shim_and_shim_the_kernel(
    binaries: tuple[Path, Path], tmp_path: Path
) -> None:
    image = build(binaries, tmp_path / "provision.iso")
    assert volume_label(image) == "OCI-BOOT"
    table = json.loads(run(["sfdisk", "-J", image], timeout=PATIENCE).text)["partitiontable"]
    esps = [part for part in table["partitions"] if part["type"].startswith("C12A7328")]
    esp = tmp_path / "esp"
    offset = esps[0]["start"] * 512
    esp.write_bytes(image.read_bytes()[offset : offset + esps[0]["size"] * 512])
    for name, source in zip(("BOOTX64.EFI", "grubx64.efi"), binaries, strict=True):
        copied = run(["mcopy", "-i", esp, f"::EFI/BOOT/{name}", "-"], timeout=PATIENCE)
        assert copied.stdout == source.read_bytes()


@pytest.mark.parametrize(
    ("kernel", "whole"), [(1 << 20, True), (28 << 20, False), (60 << 20, False)]
)
def test_firmware_is_told_the_size_of_the_boot_image_or_that_it_goes_on_to_the_end(
    binaries: tuple[Path, Path], tmp_path: Path, kernel: int, whole: bool
) -> None:
    """UEFI 2.10, section 13.3.2.1: 0 stands for the end of the volume, and the volume has to hold
    the image; a count that is cut to 16 bits would cut the image."""
    os.truncate(binaries[1], kernel)
    image = build(binaries, tmp_path / "provision.iso")
    with image.open("rb") as file:
        file.seek(16 * 2048 + 80)
        volume = int.from_bytes(file.read(4), "little") * 2048
        file.seek(17 * 2048 + 0x47)
        file.seek(int.from_bytes(file.read(4), "little") * 2048 + 32)
        entry = file.read(12)
    count, start = int.from_bytes(entry[6:8], "little"), int.from_bytes(entry[8:12], "little")
    table = json.loads(run(["sfdisk", "-J", image], timeout=PATIENCE).text)["partitiontable"]
    (esp,) = table["partitions"]
    assert esp["start"] * 512 == start * 2048
    assert start * 2048 + esp["size"] * 512 <= volume
    assert kernel < esp["size"] * 512
    assert count == (esp["size"] if whole else 0)


def test_what_fill_puts_there_is_on_it(binaries: tuple[Path, Path], tmp_path: Path) -> None:
    def fill(registry: LayoutRegistry) -> None:
        put_image(registry.repository("machine/install"), "1.0.0")

    image = build(
        binaries, tmp_path / "install.iso", live="machine/live:1", install="machine/install:1.0.0",
        fill=fill,
    )  # fmt: skip
    out = tmp_path / "out"
    run(["xorriso", "-osirrox", "on", "-indev", f"stdio:{image}", "-extract", "/", out], timeout=60)
    index = parse_index((out / "machineos.json").read_bytes())
    assert (index.live, index.install) == ("machine/live:1", "machine/install:1.0.0")
    found = LayoutRegistry(out / "oci").repository("machine/install").resolve("1.0.0")
    assert found.size > 0


def test_the_same_input_gives_the_same_bytes(binaries: tuple[Path, Path], tmp_path: Path) -> None:
    one = build(binaries, tmp_path / "one.iso").read_bytes()
    for path in binaries:
        os.utime(path, (978_307_200, 978_307_200))
    assert build(binaries, tmp_path / "two.iso").read_bytes() == one


def test_a_failure_leaves_nothing(binaries: tuple[Path, Path], tmp_path: Path) -> None:
    def fill(_registry: object) -> None:
        raise ValueError

    folder = tmp_path / "artifacts"
    with pytest.raises(ValueError):
        build(binaries, folder / "install.iso", fill=fill)
    assert list(folder.iterdir()) == []
