from __future__ import annotations

from machineos.core.command import Command
from machineos.host.disk.devmapper import rename_command


def test_a_device_is_renamed_without_udev() -> None:
    argv = ("dmsetup", "--noudevrules", "--noudevsync", "rename", "a+new", "a")
    assert rename_command("a+new", "a") == Command(argv, 60.0)
