from __future__ import annotations

from pathlib import Path

from machineos.core.command import Command
from machineos.host.disk.mkfs import ext4_command, fat32_command

DEVICE = Path("/dev/vda3")


def test_ext4() -> None:
    argv = (
        "mkfs.ext4", "-q", "-F", "-L", "machine-store", "-m", "0", "-O", "metadata_csum,64bit",
        "-E", "lazy_itable_init=1,lazy_journal_init=1", "/dev/vda3",
    )  # fmt: skip
    assert ext4_command(DEVICE, label="machine-store") == Command(argv, 600.0)


def test_fat32() -> None:
    argv = ("mkfs.vfat", "-F32", "-n", "ESP", "/dev/vda3")
    assert fat32_command(DEVICE, label="ESP") == Command(argv, 600.0)
