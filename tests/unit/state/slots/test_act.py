"""Boot files on a real file system on a loop device: durable, and really read back.

The appliance has them on FAT, which not every host has in its kernel: tests/vm does the same there.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.disk import LoopDisk
from machineos.core.command import Command, Result
from machineos.core.digest import Digest
from machineos.errors import SpaceError
from machineos.host.disk import tools
from machineos.host.efi.efibootmgr import (
    BootEntry,
    create_command,
    delete_command,
    list_command,
)
from machineos.state.slots.act import (
    copy_file,
    create_entry,
    delete_entry,
    list_entries,
    read_back,
)

NAME = "EFI/machineos-a/grubx64.efi"
MARK = hashlib.sha512(b"somewhere in the kernel").digest()
CONTENT = os.urandom(1 << 20) + MARK + os.urandom(5000)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[LoopDisk]:
    made = LoopDisk(tmp_path / "disk", size=64 << 20)
    tools.make_filesystem("ext4", made.device, label="x")
    yield made
    made.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


def test_a_copy_is_named_by_its_digest(source: Path, tmp_path: Path) -> None:
    assert copy_file(source, tmp_path / "esp", NAME) == Digest.of(CONTENT)
    assert (tmp_path / "esp" / NAME).read_bytes() == CONTENT
    assert read_back(tmp_path / "esp", NAME) == Digest.of(CONTENT)
    source.write_bytes(b"")
    assert copy_file(source, tmp_path / "esp", "empty") == Digest.of(b"")
    assert read_back(tmp_path / "esp", "empty") == Digest.of(b"")


def test_what_a_cut_left_there_is_replaced(source: Path, tmp_path: Path) -> None:
    (tmp_path / "esp/EFI/machineos-a").mkdir(parents=True)
    (tmp_path / "esp" / NAME).write_bytes(CONTENT * 2)
    copy_file(source, tmp_path / "esp", NAME)
    assert (tmp_path / "esp" / NAME).read_bytes() == CONTENT


def test_file_folder_and_every_folder_above_are_synced_in_this_order(
    source: Path, tmp_path: Path
) -> None:
    esp = tmp_path / "esp"
    source.write_bytes(b"small")  # and so still in the buffer when it was written
    seen: list[tuple[str, int]] = []

    def note(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        seen.append((str(path.relative_to(esp)), len((esp / NAME).read_bytes())))

    copy_file(source, esp, NAME, sync=note)
    whole = len(b"small")
    assert seen == [
        (NAME, whole), ("EFI/machineos-a", whole), ("EFI", whole), (".", whole),
    ]  # fmt: skip


class Firmware:
    """Stands for efibootmgr, which not every host has: notes its commands, answers as recorded."""

    def __init__(self, output: bytes = b"") -> None:
        self.output = output
        self.commands: list[Command] = []

    def __call__(self, command: Command) -> Result:
        self.commands.append(command)
        return Result(command.argv, 0, self.output, b"")


def test_entries_are_listed_as_recorded() -> None:
    firmware = Firmware(b"BootOrder: 0004\nBoot0004* machineos-a\tHD(1,GPT,2b1f)/x.efi\n")
    assert list_entries(run=firmware) == (BootEntry("0004", True, "machineos-a"),)
    assert firmware.commands == [list_command()]


def test_entries_are_made_and_deleted_by_one_command_each() -> None:
    firmware = Firmware()
    delete_entry("000A", run=firmware)
    create_entry(Path("/dev/vda"), 1, "machineos-a", "loader", run=firmware)
    assert firmware.commands == [
        delete_command("000A"),
        create_command(Path("/dev/vda"), 1, description="machineos-a", loader="loader"),
    ]


@pytest.mark.system
def test_a_power_cut_right_after_it_leaves_it_whole(disk: LoopDisk, source: Path) -> None:
    copy_file(source, disk.mount("ext4"), NAME)
    left = disk.cut()
    try:
        assert (left.mount("ext4") / NAME).read_bytes() == CONTENT
    finally:
        left.close()


@pytest.mark.system
def test_a_power_cut_loses_what_was_not_synced(disk: LoopDisk, source: Path) -> None:
    """Without this the test before it would say nothing."""
    folder = disk.mount("ext4", options="commit=300")
    (folder / "plain").write_bytes(source.read_bytes())
    left = disk.cut()
    try:
        path = left.mount("ext4") / "plain"
        assert not path.exists() or path.read_bytes() != CONTENT
    finally:
        left.close()


@pytest.mark.system
def test_damage_on_the_disk_is_noticed(disk: LoopDisk, source: Path) -> None:
    """Review: it was read back from the page cache, which gives what was written."""
    root = disk.mount("ext4")
    written = copy_file(source, root, NAME)
    assert read_back(root, NAME) == written
    assert disk.damage(MARK) == 1
    assert Digest.of((root / NAME).read_bytes()) == written, "nothing was in the page cache"
    assert read_back(root, NAME) != written


@pytest.mark.system
def test_damage_is_noticed_after_mounting_again(disk: LoopDisk, source: Path) -> None:
    """The other half: what no longer is in memory cannot be given from there."""
    written = copy_file(source, disk.mount("ext4"), NAME)
    disk.damage(MARK)
    disk.unmount()
    assert Digest.of((disk.mount("ext4", read_only=True) / NAME).read_bytes()) != written


@pytest.mark.system
def test_a_full_disk_is_said(tmp_path: Path, source: Path) -> None:
    small = LoopDisk(tmp_path / "small", size=1 << 20)
    try:
        tools.make_filesystem("ext4", small.device, label="x")
        root = small.mount("ext4")
        with pytest.raises(SpaceError, match=r"grubx64\.efi: no space left"):
            copy_file(source, root, NAME)
    finally:
        small.close()
