"""What sysfs and a few fixed bytes say about a device."""

from __future__ import annotations

from pathlib import Path

import pytest

from changed import replace
from machineos.host.disk.device import (
    FAT_SIZE,
    ISO_OFFSET,
    ISO_SIZE,
    SECTOR,
    Disk,
    Entry,
    Partition,
    disk_of,
    label_of,
    partition_of,
)

VDA = Entry(Path("/sys/devices/pci0/block/vda"), "DEVTYPE=disk\nDISKSEQ=1", "16", "0", "0", "")
VDA1 = Entry(
    Path("/sys/devices/pci0/block/vda/vda1"), "DEVTYPE=partition\nPARTNAME=esp", "", "", "", ""
)


def test_a_disk() -> None:
    assert disk_of(VDA) == Disk("vda", 8192, read_only=False, removable=False)
    assert disk_of(replace(VDA, ro="1")) == Disk("vda", 8192, read_only=True, removable=False)
    assert disk_of(replace(VDA, removable="1")) == Disk("vda", 8192, False, removable=True)
    assert disk_of(replace(VDA, size="")) == Disk("vda", 0, read_only=False, removable=False)
    assert disk_of(replace(VDA, hidden="0")) is not None


@pytest.mark.parametrize(
    "entry",
    [
        replace(VDA, uevent="DEVTYPE=partition"),
        replace(VDA, uevent=""),
        replace(VDA, uevent="nonsense"),
        replace(VDA, hidden="1"),
        replace(VDA, path=Path("/sys/devices/virtual/block/vda")),
        replace(VDA, path=Path("/sys/devices/pci0/block/sr0")),
        replace(VDA, path=Path("/sys/devices/pci0/block/fd0")),
        VDA1,
    ],
)
def test_what_is_no_disk(entry: Entry) -> None:
    assert disk_of(entry) is None


def test_a_partition_is_named_with_its_disk() -> None:
    assert partition_of(VDA1) == Partition("vda", "vda1", "esp")
    odd = replace(VDA1, uevent="DEVTYPE=partition\nPARTNAME=a=b")
    assert partition_of(odd) == Partition("vda", "vda1", "a=b")


@pytest.mark.parametrize(
    "uevent", ["DEVTYPE=partition", "DEVTYPE=partition\nPARTNAME=", "PARTNAME=esp", "", "DEVTYPE"]
)
def test_what_is_no_partition(uevent: str) -> None:
    assert partition_of(replace(VDA1, uevent=uevent)) is None
    assert partition_of(VDA) is None


def test_nodes() -> None:
    assert Disk("vda", 1, read_only=False, removable=False).device == Path("/dev/vda")
    assert Partition("vda", "vda1", "esp").device == Path("/dev/vda1")


def test_where_the_labels_are() -> None:
    """FAT specification, 3.1 and 3.3; ISO 9660, 8.4: sector 16."""
    assert (SECTOR, FAT_SIZE, ISO_OFFSET, ISO_SIZE) == (512, 512, 16 * 2048, 72)


def sector(kind: int, label: int, text: bytes = b"inst-data  ") -> bytes:
    made = bytearray(512)
    made[kind : kind + 3] = b"FAT"
    made[label : label + 11] = text
    made[510:] = b"\x55\xaa"
    return bytes(made)


def volume(text: bytes) -> bytes:
    return b"\x01CD001\x01\0" + bytes(32) + text.ljust(32)


def test_labels() -> None:
    assert label_of(sector(0x52, 0x47), b"") == "inst-data"
    assert label_of(sector(0x36, 0x2B), b"") == "inst-data"
    assert label_of(b"", volume(b"OCI-BOOT")) == "OCI-BOOT"
    assert label_of(sector(0x52, 0x47, b"abcdefghijk"), b"") == "abcdefghijk"
    assert label_of(b"", volume(b"x" * 32) + b"y") == "x" * 32


def test_an_iso_that_is_also_a_disk_is_an_iso() -> None:
    assert label_of(sector(0x52, 0x47), volume(b"OCI-BOOT")) == "OCI-BOOT"


@pytest.mark.parametrize(
    "first",
    [
        b"",
        bytes(512),
        sector(0x52, 0x47)[:510] + b"\x55\xab",
        sector(0x53, 0x47),
        sector(0x35, 0x2B),
    ],
)
def test_no_label(first: bytes) -> None:
    assert label_of(first, b"") == ""
    assert label_of(first, b"\x01CD002" + bytes(66)) == ""
