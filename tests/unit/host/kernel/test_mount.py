from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from machineos.core import run
from machineos.core.idrange import IdRange
from machineos.errors import MissingError, ToolError
from machineos.host.kernel import loopdev, mount
from machineos.host.kernel.idmap import user_namespace
from waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

system = pytest.mark.system

# Recorded: a name with a space, a mount with optional fields, one without.
MOUNTINFO = """\
25 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
42 25 7:0 /sub /mnt/a\\040b ro,nosuid shared:2 master:1 - squashfs /dev/loop0 ro
43 25 0:5 / /back\\134slash rw - tmpfs none rw
"""


@pytest.fixture
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="machineos-mount-") as name:
        folder = Path(name)
        for each in ("a", "b", "c"):
            (folder / each).mkdir()
        yield folder
        for entry in reversed(mount.mounts()):
            if entry.target.is_relative_to(folder):
                with suppress(ToolError):
                    mount.unmount(entry.target, lazy=True)


def entry(target: Path) -> mount.Mount:
    return next(entry for entry in reversed(mount.mounts()) if entry.target == target)


def test_mountinfo_is_read() -> None:
    found = mount.parse_mountinfo(MOUNTINFO)
    assert [str(entry.target) for entry in found] == ["/", "/mnt/a b", "/back\\slash"]
    assert (found[1].device, found[1].root, found[1].fstype) == ("7:0", "/sub", "squashfs")
    assert found[1].read_only
    assert not found[0].read_only
    assert mount.is_mounted(Path("/mnt/a b"), found)
    with pytest.raises(ToolError):
        mount.parse_mountinfo("nonsense\n")


@system
def test_tmpfs_bind_move_and_unmount(place: Path) -> None:
    mount.mount("tmpfs", place / "a", "tmpfs", mount.Flag.NOSUID, "size=1m,mode=0700")
    (place / "a/file").write_text("x")
    assert entry(place / "a").fstype == "tmpfs"
    mount.bind(place / "a", place / "b", read_only=True)
    assert {"ro", "nosuid", "nodev"} <= set(entry(place / "b").options)
    with pytest.raises(OSError, match="Read-only"):
        (place / "b/new").write_text("x")
    (place / "a/new").write_text("x")
    mount.mount("none", place / "b", "", mount.Flag.PRIVATE | mount.Flag.REC)
    mount.unmount(place / "b")
    mount.bind(place / "a", place / "b", read_only=False)
    (place / "b/other").write_text("x")
    mount.unmount(place / "b")
    assert not mount.is_mounted(place / "b")
    with (place / "a/file").open():
        with pytest.raises(ToolError, match="busy"):
            mount.unmount(place / "a")
        mount.unmount(place / "a", lazy=True)
    assert not mount.is_mounted(place / "a")


@system
def test_move(place: Path) -> None:
    # Moving out of a shared mount is not possible, so the place is made a private one first.
    mount.mount("tmpfs", place / "c", "tmpfs")
    mount.mount("none", place / "c", "", mount.Flag.PRIVATE | mount.Flag.REC)
    (place / "c/from").mkdir()
    (place / "c/to").mkdir()
    mount.mount("tmpfs", place / "c/from", "tmpfs")
    (place / "c/from/file").write_text("x")
    mount.move(place / "c/from", place / "c/to")
    assert (place / "c/to/file").read_text() == "x"
    assert not mount.is_mounted(place / "c/from")
    mount.unmount(place / "c/to")
    mount.unmount(place / "c")


@system
def test_refusals_name_the_object(place: Path) -> None:
    with pytest.raises(MissingError, match="absent"):
        mount.mount("tmpfs", place / "absent", "tmpfs")
    with pytest.raises(ToolError, match="No such device"):
        mount.mount("none", place / "a", "nosuchfs")
    with pytest.raises(ToolError, match="unmount"):
        mount.unmount(place / "a")
    mount.mount("tmpfs", place / "a", "tmpfs")
    (place / "link").symlink_to(place / "a")
    with pytest.raises(ToolError):
        mount.unmount(place / "link")
    assert mount.is_mounted(place / "a")


@system
@pytest.mark.tool("mksquashfs")
def test_idmapped_clone_of_squashfs_on_a_loop_device(place: Path) -> None:
    tree = place / "tree"
    tree.mkdir()
    (tree / "file").write_text("content")
    os.chown(tree / "file", 5, 7)
    image = place / "image"
    run.run(["mksquashfs", tree, image, "-quiet", "-no-progress"], timeout=60)
    with image.open("rb") as file, loopdev.attach(file.fileno(), label="test") as device:
        assert device.path.is_block_device()
        mount.mount(device.path, place / "a", "squashfs", mount.Flag.RDONLY)
        with user_namespace(IdRange(165536, 65536)) as namespace:
            mount.clone_idmapped(place / "a", place / "b", namespace, read_only=True)
    status = (place / "b/file").stat()
    assert (status.st_uid, status.st_gid) == (165541, 165543)
    assert {"ro", "nosuid", "nodev", "idmapped"} <= set(entry(place / "b").options)
    mount.unmount(place / "b")
    mount.unmount(place / "a")

    def free() -> bool:
        try:
            shown = Path(f"/sys/block/{device.path.name}/loop/backing_file").read_text()
        except OSError:
            return True
        return shown.strip() != str(image)

    # Autoclear: with the last user the device is free, for us or for anybody else. The last may be
    # a mount namespace that another test made meanwhile.
    wait_for(free, what="the loop device is free")
