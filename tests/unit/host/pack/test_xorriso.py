from __future__ import annotations

from pathlib import Path

import pytest

from machineos.core.command import Command
from machineos.errors import VerificationError
from machineos.host.pack import xorriso


def test_the_command_sets_every_time() -> None:
    command = xorriso.make_command(Path("t"), "e.img", Path("o"), label="L", epoch=1_767_225_600)
    assert command == Command(
        (
            "xorriso", "-as", "mkisofs", "-quiet", "-iso-level", "3", "-R", "-V", "L",
            "--modification-date=2026010100000000", "--set_all_file_dates", "2026010100000000",
            "-e", "e.img", "-no-emul-boot", "-o", "o", "t",
        ),
        600.0,
        env=(("SOURCE_DATE_EPOCH", "1767225600"),),
    )  # fmt: skip


def test_where_the_boot_image_is() -> None:
    record = b"\0CD001\1EL TORITO SPECIFICATION".ljust(0x47, b"\0") + b"\x21\0\0\0"
    assert xorriso.catalog_at(record.ljust(2048, b"\0")) == 33 * 2048
    entry = b"\x88\0\0\0\0\0\0\x40\x22\x01\0\0"
    assert xorriso.boot_image_at((bytes(32) + entry).ljust(2048, b"\0")) == 0x122 * 2048


@pytest.mark.parametrize("record", [b"", bytes(2048), b"\0CD001\2EL TORITO SPECIFICATION"])
def test_no_boot_record(record: bytes) -> None:
    with pytest.raises(VerificationError, match="no boot record"):
        xorriso.catalog_at(record)


def test_a_table_with_the_boot_image_in_it() -> None:
    command = xorriso.partition_command(
        Path("o"), start=34 * 2048, size=4 << 20, label="L", epoch=1
    )
    assert command.argv[0] == "sfdisk"
    assert command.argv[-1] == "o"
    lines = (command.input or b"").decode().splitlines()
    assert (lines[0], lines[2]) == ("label: gpt", "first-lba: 34")
    assert lines[1].startswith("label-id: ")
    start = "start=136, size=8192, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, uuid="
    assert lines[3].startswith(start)
    assert lines[1].removeprefix("label-id: ") != lines[3].removeprefix(start)
    again = xorriso.partition_command(Path("o"), start=34 * 2048, size=4 << 20, label="L", epoch=1)
    other = xorriso.partition_command(Path("o"), start=34 * 2048, size=4 << 20, label="L", epoch=2)
    assert command == again
    assert command != other
