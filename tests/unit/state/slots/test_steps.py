"""What a slot is, and which steps make and name it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.core.digest import Digest
from machineos.errors import BootError, UsageError
from machineos.host.efi.efibootmgr import BootEntry
from machineos.state.slots.steps import (
    CONFIGURED,
    PREFIX,
    READ_BACK,
    STORED,
    CopyFile,
    CreateEntry,
    DeleteEntry,
    ReadBack,
    Slot,
    SlotFile,
    check_read_back,
    fallback_files,
    point_to,
    read_files,
    write_files,
)

SLOT = Slot("machineos-a")


def test_the_files_of_a_slot_the_one_that_is_started_last() -> None:
    assert SLOT.files == (
        SlotFile("bootkit/kernel.efi", "EFI/machineos-a/grubx64.efi"),
        SlotFile("bootkit/shim.efi", "EFI/machineos-a/shimx64.efi"),
    )
    assert SLOT.loader == "\\EFI\\machineos-a\\shimx64.efi"


def test_another_slot_is_another_folder() -> None:
    slot = Slot("machineos-3f9")
    assert [file.name for file in slot.files] == [
        "EFI/machineos-3f9/grubx64.efi", "EFI/machineos-3f9/shimx64.efi",
    ]  # fmt: skip
    assert slot.loader == "\\EFI\\machineos-3f9\\shimx64.efi"


def test_the_fallback_has_the_name_that_firmware_looks_for() -> None:
    """UEFI 2.10, 3.5.1.1: removable media."""
    assert fallback_files() == (
        SlotFile("bootkit/kernel.efi", "EFI/BOOT/grubx64.efi"),
        SlotFile("bootkit/shim.efi", "EFI/BOOT/BOOTX64.EFI"),
    )


@pytest.mark.parametrize(
    "name",
    ["", "a", "machineos", "machineos-", "machineos-A", "machineos-a/b", "machineos-..",
     "machineos-a ", "machineos-a\n", "Machineos-a", "machineos-" + "a" * 65, "machineos-a-b",
     "xmachineos-a"],
)  # fmt: skip
def test_what_is_no_name_of_a_slot(name: str) -> None:
    with pytest.raises(UsageError, match="is not the name of a slot"):
        Slot(name)


def test_the_longest_name() -> None:
    assert Slot("machineos-" + "a" * 64).name == PREFIX + "a" * 64


@given(st.text(max_size=80))
def test_any_name_stays_in_its_folder(name: str) -> None:
    try:
        slot = Slot(name)
    except UsageError:
        return
    assert all(Path(file.name).parent == Path("EFI") / name for file in slot.files)


def test_writing_and_reading_back() -> None:
    assert write_files(Path("/kit"), Path("/esp"), SLOT.files) == (
        CopyFile(Path("/kit/bootkit/kernel.efi"), Path("/esp"), "EFI/machineos-a/grubx64.efi"),
        CopyFile(Path("/kit/bootkit/shim.efi"), Path("/esp"), "EFI/machineos-a/shimx64.efi"),
    )
    assert read_files(Path("/esp"), SLOT.files) == (
        ReadBack(Path("/esp"), "EFI/machineos-a/grubx64.efi"),
        ReadBack(Path("/esp"), "EFI/machineos-a/shimx64.efi"),
    )


def test_a_file_that_reads_otherwise() -> None:
    check_read_back(Path("/esp/x"), Digest.of(b"a"), Digest.of(b"a"))
    with pytest.raises(BootError) as caught:
        check_read_back(Path("/esp/x"), Digest.of(b"a"), Digest.of(b"b"))
    assert caught.value.message == "/esp/x: the disk does not give back what was written"


def test_entries_of_earlier_installations_go_and_others_stay() -> None:
    entries = (
        BootEntry("0000", True, "UiApp"),
        BootEntry("0001", False, "machineos-b"),
        BootEntry("000A", True, "machineos-a"),
        BootEntry("0002", True, "not machineos-a"),
        BootEntry("0003", True, "machineos"),
    )
    new = CreateEntry(Path("/dev/vda"), 1, "machineos-a", "\\EFI\\machineos-a\\shimx64.efi")
    assert point_to(SLOT, Path("/dev/vda"), 1, entries) == (
        DeleteEntry("0001"), DeleteEntry("000A"), new,
    )  # fmt: skip
    assert point_to(SLOT, Path("/dev/vda"), 1, ()) == (new,)


def test_fault_points() -> None:
    assert CopyFile(Path("/a"), Path("/esp"), "EFI/x").fault_point == "boot-file:EFI/x"
    assert DeleteEntry("000A").fault_point == "forget-entry:000A"
    assert CreateEntry(Path("/dev/vda"), 1, "machineos-a", "x").fault_point == (
        "boot-entry:machineos-a"
    )
    assert ReadBack(Path("/esp"), "x").fault_point == ""


def test_an_entry_is_made_only_for_what_was_read_back() -> None:
    assert CreateEntry.after == DeleteEntry.after == {READ_BACK} == {"boot files read back"}


def test_the_firmware_finds_nothing_before_a_boot_finds_all_that_it_needs() -> None:
    assert CopyFile.after == {STORED, CONFIGURED}
    assert (STORED, CONFIGURED) == ("images stored", "configuration stored")
    assert ReadBack.after == frozenset()
