from __future__ import annotations

import struct
from pathlib import Path

import pytest

from machineos.core.command import Command
from machineos.errors import VerificationError
from machineos.host.disk import integrity

KEYED = (
    "--integrity=hmac-sha256", "--integrity-key-file=/proc/self/fd/0", "--integrity-key-size=32",
)  # fmt: skip


def test_the_commands() -> None:
    """As they were tried; the key is on standard input and in no argument."""
    device = Path("/dev/vda5")
    assert integrity.format_command(device) == Command(
        ("integritysetup", "format", "--batch-mode", "--no-wipe", *KEYED, "--tag-size=32",
         "--sector-size=4096", "--journal-size=16777216", "/dev/vda5"),
        900.0,
    )  # fmt: skip
    assert integrity.open_command(device, "x") == Command(
        ("integritysetup", "open", *KEYED, "/dev/vda5", "x"), 900.0
    )
    assert integrity.close_command("x") == Command(("integritysetup", "close", "x"), 900.0)
    assert integrity.mapped("x") == Path("/dev/mapper/x")
    assert integrity.KEY_SIZE == 32
    assert integrity.EDGE == 16 << 20


def superblock(**changes: int) -> bytes:
    """Return one as integritysetup 2.7 makes it; that it does is seen in tests/vm."""
    values = {
        "version": 5, "interleave": 15, "tag": 32, "sections": 124, "data": 1 << 24,
        "flags": 0x18, "block": 3, "bitmap": 0, "recalculated": 0,
    } | changes  # fmt: skip
    packed = struct.pack("<8sBBHIQIBB2xQ", b"integrt\0", *values.values())
    return packed.ljust(integrity.SUPERBLOCK_SIZE, b"\xa5")


def test_a_superblock_of_ours() -> None:
    integrity.check_superblock(superblock(), what="vda5")
    integrity.check_superblock(superblock(interleave=14, data=1, bitmap=9), what="vda5")


@pytest.mark.parametrize(
    "changes",
    [
        {"flags": 0x18 | flag} for flag in (0x01, 0x02, 0x04, 0x20, 0x80000000)
    ] + [
        {"flags": 0x08}, {"flags": 0x10}, {"flags": 0}, {"recalculated": 1}, {"version": 4},
        {"version": 6}, {"tag": 4}, {"tag": 0}, {"block": 0}, {"block": 255},
        {"sections": 257}, {"sections": 0xFFFFFFFF},
    ],
)  # fmt: skip
def test_one_that_asks_the_kernel_for_something_else(changes: dict[str, int]) -> None:
    """Recalculation, by itself or as what a bitmap leaves, gives every block a tag of our key; a
    journal that fills the memory is no better."""
    with pytest.raises(VerificationError, match="vda5: its superblock of dm-integrity is none"):
        integrity.check_superblock(superblock(**changes), what="vda5")


@pytest.mark.parametrize("block", [b"", b"integrt\0", bytes(511)])
def test_what_is_no_superblock(block: bytes) -> None:
    with pytest.raises(VerificationError, match="vda5: it"):
        integrity.check_superblock(block, what="vda5")
