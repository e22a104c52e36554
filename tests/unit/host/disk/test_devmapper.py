from __future__ import annotations

from machineos.core.command import Command
from machineos.host.disk.devmapper import rename_command


def test_a_device_is_renamed() -> None:
    assert rename_command("a+new", "a") == Command(("dmsetup", "rename", "a+new", "a"), 60.0)
