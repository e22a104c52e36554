from __future__ import annotations

from pathlib import Path

from machineos.core.command import Command
from machineos.host.pack import xorriso


def test_the_command_sets_every_time() -> None:
    command = xorriso.make_command(Path("t"), Path("e"), Path("o"), label="L", epoch=1_767_225_600)
    assert command == Command(
        (
            "xorriso", "-as", "mkisofs", "-quiet", "-iso-level", "3", "-R", "-V", "L",
            "--modification-date=2026010100000000", "--set_all_file_dates", "2026010100000000",
            "-append_partition", "2", "0xef", "e", "-appended_part_as_gpt",
            "-e", "--interval:appended_partition_2:all::", "-no-emul-boot", "-o", "o", "t",
        ),
        600.0,
        env=(("SOURCE_DATE_EPOCH", "1767225600"),),
    )  # fmt: skip
