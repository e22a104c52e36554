"""The tools for disks, really run, on plain files."""

from __future__ import annotations

from pathlib import Path

import pytest

from machineos.core.run import run
from machineos.core.secret import Secret
from machineos.errors import MissingToolError, ToolError, VerificationError
from machineos.host.disk import cryptsetup, luks, tools
from machineos.host.disk.blockdev import volume_label
from machineos.host.disk.luks import HEADER_SIZE, LuksVolume
from machineos.host.disk.lvm import Group
from waiting import PATIENCE

UUID = "0b0f8dd4-37d6-4b15-8b9e-3f1d8a1c7a11"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    return path


@pytest.mark.tool("mkfs.ext4")
def test_ext4(image: Path) -> None:
    tools.make_filesystem("ext4", image, label="machine-store")
    fields = dict(
        line.split(":", 1)
        for line in run(["dumpe2fs", "-h", image], timeout=PATIENCE).text.splitlines()
        if ":" in line
    )
    assert fields["Filesystem volume name"].strip() == "machine-store"
    assert {"metadata_csum", "64bit", "extent"} <= set(fields["Filesystem features"].split())
    assert fields["Reserved block count"].strip() == "0"
    run(["e2fsck", "-fn", image], timeout=PATIENCE)


@pytest.mark.tool("mkfs.vfat")
def test_fat32(image: Path) -> None:
    tools.make_filesystem("vfat", image, label="ESP")
    assert volume_label(image) == "ESP"
    assert image.read_bytes()[0x52:0x57] == b"FAT32"


@pytest.mark.tool("cryptsetup")
def test_another_key_does_not_open(image: Path) -> None:
    """Nor does this one where there is no device-mapper; the guests open it."""
    argv = luks.format_command(LuksVolume(image, "x"), uuid=UUID).argv
    plain = [arg for arg in argv if not arg.startswith("--integrity")]
    run(plain, input=b"secret", timeout=PATIENCE)
    opening = ["cryptsetup", "open", "--test-passphrase", "--key-file=-", str(image)]
    run(opening, input=b"secret", timeout=PATIENCE)
    assert run(opening, input=b"Secret", timeout=PATIENCE, check=False).status == 2
    with pytest.raises(VerificationError) as caught:
        cryptsetup.open_volume(LuksVolume(image, "machineos-test"), Secret(b"Secret"))
    assert caught.value.message.startswith(f"{image}: does not open with this machine's key: ")


def test_what_cannot_be_formatted_is_an_error(tmp_path: Path) -> None:
    volume = LuksVolume(tmp_path / "none", "x")
    with pytest.raises(ToolError, match="luksFormat"):
        cryptsetup.format_volume(volume, Secret(b"k"), uuid=UUID)
    with pytest.raises((ToolError, MissingToolError), match="lvm"):
        tools.create_group(Group("machine-data", tmp_path / "none"))


def test_closing_what_is_not_open() -> None:
    cryptsetup.close_volume("machineos-is-not-there")


def test_read_header_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(HEADER_SIZE + 1000)
    assert len(cryptsetup.read_header(path, HEADER_SIZE)) == HEADER_SIZE
    path.write_bytes(b"short")
    assert cryptsetup.read_header(path, 100) == b"short"


def test_descriptors_are_closed(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(1024))
    before = len(list(Path("/proc/self/fd").iterdir()))
    cryptsetup.read_header(path, 100)
    synced: list[Path] = []
    tools.flush(path, sync=lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").readlink()))
    assert synced == [path]
    volume_label(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    with pytest.raises(FileNotFoundError):
        tools.flush(tmp_path / "none")
