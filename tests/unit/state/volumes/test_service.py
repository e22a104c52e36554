"""Where services keep data: what is there stays, and a label never leads elsewhere.

The predecessor made persistent volumes anew at every boot. That a logical volume survives one is
shown in a guest (tests/vm/test_appliance); device-mapper is not everywhere.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from machineos.document.between.handover import Volume
from machineos.errors import ConflictError, DocumentError, MissingError, ToolError
from machineos.host.disk.lvm import Group
from machineos.host.kernel.mount import Flag, mount, mounts, unmount
from machineos.state.volumes.service import FolderStorage, LogicalVolumes

ME = {"uid": os.getuid(), "gid": os.getgid()}


@pytest.mark.root
def test_a_new_folder_is_its_owners_alone(tmp_path: Path) -> None:
    path = FolderStorage(tmp_path / "data").provide("blobs", uid=166536, gid=165569)
    status = path.stat()
    assert path == tmp_path / "data/blobs"
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (166536, 165569, 0o700)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o711


@pytest.mark.root
def test_what_is_there_stays_with_its_owner_and_mode(tmp_path: Path) -> None:
    storage = FolderStorage(tmp_path)
    path = storage.provide("blobs", uid=100000, gid=100000)
    (path / "file").write_text("kept")
    path.chmod(0o750)
    before = path.stat()
    # also for a service whose image now runs as somebody else
    assert FolderStorage(tmp_path).provide("blobs", uid=165536, gid=165536) == path
    after = path.stat()
    assert (path / "file").read_text() == "kept"
    assert (after.st_ino, after.st_uid, after.st_mode) == (before.st_ino, 100000, before.st_mode)


@pytest.mark.parametrize("kind", ["link", "file", "fifo"])
def test_what_is_no_folder_is_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "data/blobs"
    path.parent.mkdir()
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "file":
        path.write_text("")
    else:
        os.mkfifo(path)
    with pytest.raises(ConflictError, match=r"storage blobs: .* is not a folder"):
        FolderStorage(tmp_path / "data").provide("blobs", **ME)
    assert list((tmp_path / "elsewhere").iterdir()) == []


@given(st.text(st.characters(codec="utf-8"), max_size=40))
@example("..")
@example("../up")
@example("a/b")
@example("/etc")
@example("a\0b")
@example("x" * 300)
def test_any_label_is_one_folder_below_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, label: str
) -> None:
    root = tmp_path_factory.getbasetemp() / "any"
    try:
        path = FolderStorage(root).provide(label, **ME)
    except DocumentError:
        return
    assert path.parent == root
    assert path.is_dir()
    path.rmdir()


@pytest.fixture
def volumes(tmp_path: Path) -> Iterator[LogicalVolumes]:
    yield LogicalVolumes(
        tmp_path / "data",
        Group("no-such-group", tmp_path / "no-device"),
        [Volume("kept", True, 1), Volume("scratch", False, 1)],
        tmp_path / "no-mapper",
    )
    for left in reversed([item for item in mounts() if item.target.is_relative_to(tmp_path)]):
        unmount(left.target, lazy=True)


def test_a_label_that_no_manifest_defines(volumes: LogicalVolumes, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="storage other is not defined"):
        volumes.provide("other", **ME)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.root
def test_a_group_that_cannot_be_made_available_is_said_when_a_volume_is_wanted(
    volumes: LogicalVolumes,
) -> None:
    volumes.begin()
    for _ in range(2):
        with pytest.raises(ToolError, match="lvm"):
            volumes.provide("kept", **ME)
    assert volumes.provide("scratch", **ME).is_dir()


@pytest.mark.root
def test_what_does_not_persist_is_memory_of_its_size(
    volumes: LogicalVolumes, tmp_path: Path
) -> None:
    path = volumes.provide("scratch", uid=100000, gid=100000)
    assert path == tmp_path / "data/scratch/volume"
    assert path.stat().st_uid == 100000
    (found,) = (item for item in mounts() if item.target == path.parent)
    assert found.fstype == "tmpfs"
    assert {"nosuid", "nodev"} <= set(found.options)
    with pytest.raises(OSError, match="No space") as caught:
        (path / "file").write_bytes(bytes(2 << 20))
    assert caught.value.errno == errno.ENOSPC
    # for the second service that mounts it, and for mosd started again, it is the same
    (path / "file").write_text("here")
    assert volumes.provide("scratch", uid=165536, gid=165536) == path
    assert (path / "file").read_text() == "here"
    assert len([item for item in mounts() if item.target == path.parent]) == 1


@pytest.mark.root
def test_a_volume_that_is_mounted_is_used_as_it_is(volumes: LogicalVolumes, tmp_path: Path) -> None:
    """No program of LVM is asked for it, and nothing is made."""
    target = tmp_path / "data/kept"
    target.mkdir(parents=True)
    mount("tmpfs", target, "tmpfs", Flag.NOSUID | Flag.NODEV)
    (target / "volume").mkdir()
    (target / "volume/file").write_text("kept")
    assert volumes.provide("kept", **ME) == target / "volume"
    assert (target / "volume/file").read_text() == "kept"
