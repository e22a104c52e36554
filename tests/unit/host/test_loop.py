from __future__ import annotations

import os
from pathlib import Path

import pytest

from machineos.errors import MissingError, ToolError
from machineos.host.loop import attached


@pytest.mark.root
def test_a_file_as_a_device(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"machineos" + bytes(8192 - 9))
    with attached(image) as (device, number):
        backing = Path("/sys/dev/block") / number / "loop"
        assert (backing / "backing_file").read_text().strip() == str(image)
        assert (backing / "autoclear").read_text().strip() == "1"
        assert device.read_bytes()[:9] == b"machineos"
        assert (backing.parent / "ro").read_text().strip() == "1"
        with attached(image) as (second, _):
            assert second != device
    assert not (backing / "backing_file").exists()


def test_what_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="none does not exist"), attached(tmp_path / "none"):
        pass
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(ToolError, match="link"), attached(tmp_path / "link"):
        pass
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(ToolError, match="not a regular file"), attached(path):
            pass


def test_no_loop_driver(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(4096))
    with pytest.raises(MissingError, match="loop-control does not exist"):
        with attached(image, control=tmp_path / "loop-control"):
            pass
