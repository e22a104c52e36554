"""Persistent volumes: what is there is used, and a call that was cut off is simply made again.

That a logical volume survives a boot is shown in a guest; device-mapper is not everywhere.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from machineos.document.model.names import Label, Unfinished, VolumeName
from machineos.errors import ConflictError, MissingError, ToolError, VerificationError
from machineos.host.disk import luks
from machineos.host.disk.lvm import UNFINISHED, Group, LogicalVolume
from machineos.host.disk.tools import VolumeGroup
from machineos.state.volumes.service import LogicalVolumes, own_folder

ME = {"uid": os.getuid(), "gid": os.getgid()}


@dataclass
class MemoryGroup:
    """A volume group without LVM; ``asked`` is what it was told, and LVM refuses what is so."""

    name: str = "group"
    sizes: dict[str, int] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    def volumes(self) -> dict[str, LogicalVolume]:
        self.asked.append("list")
        return {
            name: LogicalVolume(size, frozenset({UNFINISHED} if name in self.begun else ()))
            for name, size in self.sizes.items()
        }

    def log_size(self) -> int:
        return luks.HEADER_SIZE + 900

    def create_volume(self, name: VolumeName, size: int) -> None:
        self.asked.append(f"create {name}")
        if name in self.sizes:
            raise ToolError(f"{name} already exists")
        room = size - luks.HEADER_SIZE  # what LUKS takes comes on top of what was asked for
        if room > 1000:
            raise ToolError("insufficient free space")
        self.sizes[name] = room
        self.begun.add(name)

    def finish_volume(self, name: VolumeName) -> None:
        self.asked.append(f"finish {name}")
        self.begun.discard(name)

    def rename_volume(self, name: VolumeName, new: VolumeName) -> None:
        self.asked.append(f"rename {name} {new}")
        if name not in self.sizes or new in self.sizes:
            raise ToolError(f"cannot rename {name}")
        self.sizes[new] = self.sizes.pop(name)

    def remove_volume(self, name: VolumeName) -> None:
        self.asked.append(f"remove {name}")
        if name not in self.sizes:
            raise ToolError(f"no {name}")
        if name == "busy":
            raise ToolError("in use")
        del self.sizes[name]


@pytest.fixture
def group() -> MemoryGroup:
    return MemoryGroup()


@pytest.fixture
def volumes(group: MemoryGroup, tmp_path: Path) -> LogicalVolumes:
    return LogicalVolumes(group, bytes(32), dev=tmp_path / "dev", mapper=tmp_path / "mapper")


def test_a_volume_has_a_device_once_it_is_open(volumes: LogicalVolumes, tmp_path: Path) -> None:
    assert volumes.folder == tmp_path / "mapper"
    (tmp_path / "mapper").mkdir()
    (tmp_path / "mapper/machine-volume-there").touch()
    (tmp_path / "mapper/machine-volume-new+new").touch()
    assert volumes.has_device(Label("there"))
    assert not volumes.has_device(Label("absent"))
    assert volumes.has_device(Unfinished("new+new"))
    volumes.open(Label("there"))


def test_the_log_has_what_is_kept_for_it_but_for_its_header(volumes: LogicalVolumes) -> None:
    assert volumes.log_size() == 900


def test_what_the_initrd_did_not_open_stays_closed(volumes: LogicalVolumes) -> None:
    with pytest.raises(MissingError) as caught:
        volumes.open(Label("kept"))
    words = "its volume is not open: the initrd opens it at the next boot, or says why not"
    assert str(caught.value) == f"storage kept: {words}"


def test_a_key_that_is_none_locks_nothing(volumes: LogicalVolumes, tmp_path: Path) -> None:
    """Before the volume is touched: all zeros agree on nothing."""
    with pytest.raises(VerificationError, match="names no key"):
        volumes.format(Unfinished("a+new"), Label("a"))


def test_the_real_group_is_one_of_these(tmp_path: Path) -> None:
    group = VolumeGroup(Group("no-such-group", tmp_path / "no-device"))
    assert LogicalVolumes(group, bytes(32)).folder == Path("/run/machineos/volumes")


def test_each_call_can_be_repeated(volumes: LogicalVolumes, group: MemoryGroup) -> None:
    for _ in range(2):
        volumes.create(VolumeName("a+new"), 7)
    group.sizes["0"] = 1
    assert volumes.names() == ("0", "a+new")
    assert list(volumes.unfinished().items()) == [("0", False), ("a+new", True)]
    del group.sizes["0"]
    for _ in range(2):
        volumes.finish(VolumeName("a+new"))
        assert volumes.unfinished() == {"a+new": False}
    for _ in range(2):
        volumes.rename(VolumeName("a+new"), VolumeName("a"))
    assert group.sizes == {"a": 7}
    for _ in range(2):
        volumes.remove(VolumeName("a"))
    assert group.sizes == {}


def test_lvm_is_asked_what_it_has_only_when_it_refuses(
    volumes: LogicalVolumes, group: MemoryGroup
) -> None:
    """A question takes a second at boot."""
    volumes.create(VolumeName("a+new"), 7)
    volumes.rename(VolumeName("a+new"), VolumeName("a"))
    volumes.remove(VolumeName("a"))
    assert group.asked == ["create a+new", "rename a+new a", "remove a"]


def test_what_lvm_really_refuses_is_an_error(volumes: LogicalVolumes, group: MemoryGroup) -> None:
    with pytest.raises(ToolError, match="insufficient free space"):
        volumes.create(VolumeName("a"), 2000)
    with pytest.raises(ToolError, match="cannot rename a"):
        volumes.rename(VolumeName("a"), VolumeName("b"))
    group.sizes = {"a": 1, "b": 2, "busy": 3}
    with pytest.raises(ToolError, match="cannot rename a"):
        volumes.rename(VolumeName("a"), VolumeName("b"))
    with pytest.raises(ToolError, match="in use"):
        volumes.remove(VolumeName("busy"))
    assert volumes.names() == ("a", "b", "busy")


# --- the folder of a service


@pytest.mark.root
def test_a_new_folder_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "blobs/volume"
    path.parent.mkdir()
    own_folder(path, uid=166536, gid=165569)
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (166536, 165569, 0o700)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.root
def test_what_is_there_stays_with_its_owner_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "volume"
    own_folder(path, uid=100000, gid=100000)
    (path / "file").write_text("kept")
    path.chmod(0o750)
    before = path.stat()
    # also for a service whose image now runs as somebody else
    own_folder(path, uid=165536, gid=165536)
    after = path.stat()
    assert (path / "file").read_text() == "kept"
    assert (after.st_ino, after.st_uid, after.st_mode) == (before.st_ino, 100000, before.st_mode)


@pytest.mark.root
def test_a_folder_appears_with_its_owner(tmp_path: Path) -> None:
    """Made and not yet given away is what a kill left before, and nobody could write to it."""
    (tmp_path / ".volume.new").mkdir(mode=0o700)
    own_folder(tmp_path / "volume", uid=100000, gid=100001)
    status = (tmp_path / "volume").stat()
    assert (status.st_uid, status.st_gid) == (100000, 100001)
    assert [path.name for path in tmp_path.iterdir()] == ["volume"]


@pytest.mark.parametrize("kind", ["link", "file", "fifo"])
def test_what_is_no_folder_is_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "blobs/volume"
    path.parent.mkdir()
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "file":
        path.touch()
    else:
        os.mkfifo(path)
    with pytest.raises(ConflictError) as caught:
        own_folder(path, **ME)
    assert str(caught.value) == f"storage blobs: {path} is not a folder"
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.attack(
    "disk",
    "plants a link where the folder of a service is about to be made, to lead it out of its volume",
    "the service is refused",
)
@pytest.mark.parametrize("name", [".volume.new", "volume"])
def test_a_link_to_a_folder_is_no_folder_of_a_service(tmp_path: Path, name: str) -> None:
    (tmp_path / "other").mkdir(mode=0o755)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / name).symlink_to(tmp_path / "other")
    with pytest.raises(ConflictError, match=f"storage blobs: .*{name} is not a folder"):
        own_folder(tmp_path / "blobs/volume", **ME)
    assert stat.S_IMODE((tmp_path / "other").stat().st_mode) == 0o755
