"""Loop devices of the running kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from machineos.errors import ToolError
from machineos.host.kernel import loopdev

CONTENT = b"machineos".ljust(4096, b"\0") + b"second".ljust(4096, b"\0")


def shown_by(device: loopdev.LoopDevice) -> str:
    """The file behind a device. A device that is free may be another's the moment after."""
    try:
        about = Path("/sys/class/block") / device.path.name / "loop/backing_file"
        return about.read_text().strip()
    except OSError:
        return ""


@pytest.mark.system
def test_a_file_as_a_device(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(CONTENT)
    with image.open("rb") as file:
        device = loopdev.attach(file.fileno(), label="image")
        part = loopdev.attach(file.fileno(), offset=4096, size=4096)
    with device, part:
        assert part.path != device.path
        assert os.pread(device.fd, 9, 0) == b"machineos"
        assert part.path.read_bytes() == CONTENT[4096:]
        assert shown_by(device) == shown_by(part) == str(image)
        with pytest.raises(OSError, match=r"permitted|Read-only|denied"):
            device.path.write_bytes(b"x")
    assert str(image) not in (shown_by(device), shown_by(part))
    device.close()  # once more is no fault


@pytest.mark.system
def test_a_device_that_can_be_written(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(CONTENT)
    with image.open("r+b") as file, loopdev.attach(file.fileno(), read_only=False) as device:
        os.pwrite(device.fd, b"MACHINE" + CONTENT[7:4096], 0)
        os.fsync(device.fd)
    assert image.read_bytes()[:9] == b"MACHINEos"


@pytest.mark.system
def test_what_is_no_file(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(ToolError, match="loop device for x: "):
            loopdev.attach(folder, label="x")
    finally:
        os.close(folder)
