from __future__ import annotations

from pathlib import Path

from machineos.core.command import Command
from machineos.host.efi.efibootmgr import (
    BootEntry,
    create_command,
    delete_command,
    list_command,
    parse_entries,
)

# efibootmgr 18, the paths shortened.
OUTPUT = """\
BootCurrent: 0003
Timeout: 0 seconds
BootOrder: 0003,0000,0001,0002
BootNext: 0003
Boot0000* UiApp\tFvVol(7cb8bdc9-f8eb-4f34-aaea-3ee4af6516a1)/FvFile(462caa21)
Boot0001* UEFI QEMU HARDDISK QM00005 \tPciRoot(0x0)/Pci(0x1f,0x2)/Sata(2,65535,0){auto_created}
Boot0002  machineos-b\tHD(1,GPT,2b1f)/\\EFI\\machineos-b\\shimx64.efi
Boot000A* machineos-a\tHD(1,GPT,2b1f)/\\EFI\\machineos-a\\shimx64.efi
      dp: 04 01 2a 00
"""


def test_recorded_output() -> None:
    assert parse_entries(OUTPUT) == (
        BootEntry("0000", True, "UiApp"),
        BootEntry("0001", True, "UEFI QEMU HARDDISK QM00005 "),
        BootEntry("0002", False, "machineos-b"),
        BootEntry("000A", True, "machineos-a"),
    )


def test_the_older_program_prints_no_path() -> None:
    assert parse_entries("Boot0004* machineos-a\nBoot0005  debian\n") == (
        BootEntry("0004", True, "machineos-a"),
        BootEntry("0005", False, "debian"),
    )


def test_nothing() -> None:
    assert parse_entries("") == ()
    assert parse_entries("No BootOrder is set; firmware will attempt recovery\n") == ()


def test_commands() -> None:
    assert list_command() == Command(("efibootmgr",), 60.0)
    loader = "\\EFI\\machineos-a\\shimx64.efi"
    made = create_command(Path("/dev/vda"), 1, description="machineos-a", loader=loader)
    argv = (
        "efibootmgr", "--quiet", "--create", "--disk", "/dev/vda", "--part", "1",
        "--label", "machineos-a", "--loader", loader,
    )  # fmt: skip
    assert made == Command(argv, 60.0)
    gone = ("efibootmgr", "--quiet", "--bootnum", "000A", "--delete-bootnum")
    assert delete_command("000A") == Command(gone, 60.0)
