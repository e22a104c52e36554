"""Keyed integrity: the commands; only a guest can run them (device-mapper)."""

from __future__ import annotations

from pathlib import Path

from machineos.core.command import Command
from machineos.host.disk.integritysetup import close_command, format_command, open_command

DEVICE = Path("/dev/vda5")
KEYED = (
    "--integrity=hmac-sha256", "--integrity-key-file=/proc/self/fd/0", "--integrity-key-size=32",
)  # fmt: skip


def test_it_is_formatted_without_a_wipe() -> None:
    size = ("--tag-size=32", "--sector-size=4096")
    argv = ("integritysetup", "format", "--batch-mode", "--no-wipe", *KEYED, *size, "/dev/vda5")
    assert format_command(DEVICE) == Command(argv, 300.0)


def test_it_is_opened_and_closed() -> None:
    argv = ("integritysetup", "open", *KEYED, "/dev/vda5", "name")
    assert open_command(DEVICE, "name") == Command(argv, 300.0)
    assert close_command("name") == Command(("integritysetup", "close", "name"), 300.0)
