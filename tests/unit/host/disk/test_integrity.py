from __future__ import annotations

from pathlib import Path

from machineos.core.command import Command
from machineos.host.disk import integrity

KEYED = (
    "--integrity=hmac-sha256", "--integrity-key-file=/proc/self/fd/0", "--integrity-key-size=32",
)  # fmt: skip


def test_the_commands() -> None:
    """As they were tried; the key is on standard input and in no argument."""
    device = Path("/dev/vda5")
    assert integrity.format_command(device) == Command(
        ("integritysetup", "format", "--batch-mode", "--no-wipe", *KEYED, "--tag-size=32",
         "--sector-size=4096", "/dev/vda5"),
        900.0,
    )  # fmt: skip
    assert integrity.open_command(device, "x") == Command(
        ("integritysetup", "open", *KEYED, "/dev/vda5", "x"), 900.0
    )
    assert integrity.close_command("x") == Command(("integritysetup", "close", "x"), 900.0)
    assert integrity.mapped("x") == Path("/dev/mapper/x")
    assert integrity.KEY_SIZE == 32
    assert integrity.EDGE == 16 << 20
