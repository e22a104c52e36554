"""The disk that is shared by weights is that of a path, and nothing is made that is not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from machineos.errors import MissingError, ToolError
from machineos.host.kernel.iocost import share


@pytest.fixture
def sys(tmp_path: Path) -> Path:
    """A kernel with io.cost, and a disk 254:16 with the partition that the test lies on."""
    here = tmp_path.stat().st_dev
    disk = tmp_path / "devices/pci0/virtio1/block/vdb"
    (disk / "vdb3").mkdir(parents=True)
    (disk / "dev").write_text("254:16\n")
    (disk / "vdb3/dev").write_text(f"{os.major(here)}:{os.minor(here)}\n")
    (disk / "vdb3/partition").write_text("3\n")
    (tmp_path / "dev/block").mkdir(parents=True)
    (tmp_path / f"dev/block/{os.major(here)}:{os.minor(here)}").symlink_to(disk / "vdb3")
    (tmp_path / "fs/cgroup").mkdir(parents=True)
    (tmp_path / "fs/cgroup/io.cost.qos").touch()
    return tmp_path


def test_the_disk_of_a_partition(sys: Path) -> None:
    share(sys, sys=sys)
    assert (sys / "fs/cgroup/io.cost.qos").read_text() == "254:16 enable=1"


def test_a_disk_without_partitions(sys: Path) -> None:
    (sys / "devices/pci0/virtio1/block/vdb/vdb3/partition").unlink()
    (sys / "devices/pci0/virtio1/block/vdb/vdb3/dev").write_text("254:32\n")
    share(sys, sys=sys)
    assert (sys / "fs/cgroup/io.cost.qos").read_text() == "254:32 enable=1"


def test_a_file_system_that_is_on_no_disk(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="is on no disk that could be shared by weights"):
        share(tmp_path, sys=tmp_path)


def test_a_kernel_that_cannot(sys: Path) -> None:
    (sys / "fs/cgroup/io.cost.qos").unlink()
    with pytest.raises(MissingError, match=r"io\.cost\.qos does not exist: this kernel has no"):
        share(sys, sys=sys)
    assert not (sys / "fs/cgroup/io.cost.qos").exists()


def test_a_kernel_that_refuses(sys: Path) -> None:
    (sys / "fs/cgroup/io.cost.qos").unlink()
    (sys / "fs/cgroup/io.cost.qos").mkdir()
    with pytest.raises(ToolError, match="disk 254:16 cannot be shared by weights: Is a directory"):
        share(sys, sys=sys)
