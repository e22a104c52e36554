"""Block devices in a tree like sysfs, and labels on crafted sectors."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.core.run import run
from machineos.host.disk.blockdev import disks, optical, partitions, volume_label
from machineos.host.disk.device import Disk, Partition
from machineos.host.pack.tools import make_fat


class Sysfs:
    """A tree with the shape of /sys: devices, and links to them in class/block."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.block = root / "class/block"
        self.block.mkdir(parents=True)

    def add(self, path: str, uevent: str, **attributes: str) -> None:
        folder = self.root / "devices" / path
        folder.mkdir(parents=True)
        (folder / "uevent").write_text(uevent)
        for name, value in attributes.items():
            (folder / name).write_text(value + "\n")
        (self.block / folder.name).symlink_to(folder)


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    tree = Sysfs(tmp_path / "sys")
    disk = "DEVNAME=x\nDEVTYPE=disk\nDISKSEQ=1\n"
    tree.add("pci0/virtio1/block/vda", disk, size="16777216", ro="0", removable="0")
    for number, label in enumerate(("esp", "machine-config"), 1):
        uevent = f"MAJOR=254\nDEVTYPE=partition\nPARTN={number}\nPARTNAME={label}\n"
        tree.add(f"pci0/virtio1/block/vda/vda{number}", uevent, size="2048")
    tree.add("pci0/usb1/block/sda", disk, size="64", ro="1", removable="1")
    tree.add("pci0/usb1/block/sda/sda1", "DEVTYPE=partition\nPARTNAME=machine-config\n")
    tree.add("pci0/usb1/block/sda/sda2", "DEVTYPE=partition\n")
    tree.add("pci0/ata1/block/sr0", disk, size="100", ro="1", removable="1")
    tree.add("platform/floppy/block/fd0", disk, size="8")
    tree.add("virtual/block/loop0", disk, size="8")
    tree.add("virtual/block/dm-0", disk, size="8")
    tree.add("virtual/nvme-subsystem/nvme-subsys0/nvme0n1", disk, size="10", ro="0", removable="0")
    tree.add("pci0/nvme/nvme0/nvme0c0n1", disk, size="10", hidden="1")
    return tree


def test_disks(sysfs: Sysfs) -> None:
    assert disks(sysfs.block) == (
        Disk("nvme0n1", 5120, read_only=False, removable=False),
        Disk("sda", 32768, read_only=True, removable=True),
        Disk("vda", 8 << 30, read_only=False, removable=False),
    )


def test_a_second_disk_with_the_same_label_is_a_second_candidate(sysfs: Sysfs) -> None:
    """Row 16 of the attacks: both are found, each with its own disk."""
    assert partitions(sysfs.block) == (
        Partition("sda", "sda1", "machine-config"),
        Partition("vda", "vda1", "esp"),
        Partition("vda", "vda2", "machine-config"),
    )
    assert partitions(sysfs.block)[2].device == Path("/dev/vda2")


def test_optical_drives(sysfs: Sysfs) -> None:
    assert optical(sysfs.block) == (Path("/dev/sr0"),)


def test_a_device_that_goes_away(sysfs: Sysfs) -> None:
    (sysfs.block / "gone").symlink_to(sysfs.root / "devices/none")
    assert len(disks(sysfs.block)) == 3
    assert len(partitions(sysfs.block)) == 3


def fat(label: bytes, *, kind: int = 32, mark: bytes = b"\x55\xaa") -> bytes:
    sector = bytearray(512)
    name, at = (0x52, 0x47) if kind == 32 else (0x36, 0x2B)
    sector[at : at + 11] = label.ljust(11)
    sector[name : name + 8] = f"FAT{kind}".encode().ljust(8)
    sector[510:] = mark
    return bytes(sector)


def iso(label: bytes) -> bytes:
    return bytes(0x8000) + b"\x01CD001\x01\0" + bytes(32) + label.ljust(32) + bytes(100)


@pytest.mark.parametrize(
    ("content", "label"),
    [
        (fat(b"trust-data"), "trust-data"),
        (fat(b"inst-data", kind=16), "inst-data"),
        (fat(b"inst-data", mark=b"\0\0"), ""),
        (iso(b"OCI-BOOT"), "OCI-BOOT"),
        (iso(b"OCI-BOOT")[:0x8010], ""),
        (fat(b"a")[:511], ""),
        (b"", ""),
        (bytes(0x9000), ""),
        (fat(b"\xff\xfe"), "��"),
    ],
    ids=range(9),
)
def test_labels(tmp_path: Path, content: bytes, label: str) -> None:
    path = tmp_path / "device"
    path.write_bytes(content)
    assert volume_label(path) == label


def test_no_device(tmp_path: Path) -> None:
    assert volume_label(tmp_path / "none") == ""
    assert volume_label(tmp_path) == ""


@pytest.mark.tool("mkfs.vfat")
@pytest.mark.tool("xorriso")
def test_labels_that_real_tools_write(tmp_path: Path) -> None:
    for size in (4 << 20, 40 << 20):
        make_fat(tmp_path / "fat", label="DATA", files={}, epoch=0, size=size)
        assert volume_label(tmp_path / "fat") == "DATA"
    (tmp_path / "tree").mkdir()
    run(["xorriso", "-as", "mkisofs", "-quiet", "-V", "OCI-BOOT", "-o", tmp_path / "iso",
         tmp_path / "tree"], timeout=60)  # fmt: skip
    assert volume_label(tmp_path / "iso") == "OCI-BOOT"


@given(st.binary(max_size=600), st.binary(max_size=100))
def test_any_sectors(tmp_path_factory: pytest.TempPathFactory, first: bytes, second: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "sectors"
    path.write_bytes(first.ljust(0x8000, b"\0") + second)
    assert len(volume_label(path)) <= 32
