from __future__ import annotations

from pathlib import Path

import pytest

from machineos.boot.media import find_labelled, mount_medium, read_files
from machineos.errors import MachineOSError
from machineos.host.kernel.mount import mounts
from machineos.host.pack.fat import make_image


@pytest.mark.tool("mkfs.vfat")
def test_the_first_with_the_label(tmp_path: Path) -> None:
    for name, label in (("a", "OTHER"), ("b", "trust-data"), ("c", "trust-data")):
        make_image(tmp_path / name, label=label, files={}, epoch=0, size=4 << 20)
    devices = [tmp_path / name for name in ("none", "a", "b", "c")]
    assert find_labelled(devices, "trust-data") == tmp_path / "b"
    assert find_labelled(devices, "inst-data") is None


@pytest.mark.root
def test_what_is_no_medium_leaves_no_mount(tmp_path: Path) -> None:
    before = mounts()
    (tmp_path / "file").write_bytes(bytes(65536))
    for device in (tmp_path / "file", tmp_path / "none", Path("/dev/null")):
        assert mount_medium(device, tmp_path / "at") is None
    with pytest.raises(MachineOSError):
        read_files(tmp_path / "file", ["x"], tmp_path / "at")
    assert mounts() == before
