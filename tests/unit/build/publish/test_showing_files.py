"""The files of a published target at a folder: verified, read-only, taken away again."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from machineos.build.publish.showing import hide, show
from machineos.build.publish.ways import Way
from machineos.build.recipe.config import ImageConfig
from machineos.build.recipe.filesystem import make_layer
from machineos.build.recipe.image import put_image
from machineos.core.digest import Digest
from machineos.document.verify.images import VerifiedImage, verify_image
from machineos.errors import (
    ConflictError,
    DigestError,
    MachineOSError,
    MissingError,
    VerificationError,
)
from machineos.host.kernel.mount import is_mounted
from machineos.host.pack.container import Ids
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.atomfs import FilesystemKind
from unit.document.conftest import World

pytestmark = [
    pytest.mark.system,
    pytest.mark.tool("mksquashfs"),
    pytest.mark.tool("mkfs.erofs"),
    pytest.mark.tool("veritysetup"),
    pytest.mark.tool("squashfuse"),
]


def fill(tree: Path, number: int) -> None:
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/tool").write_bytes(b"#!/bin/sh\n" * 2000)
    (tree / "bin/tool").chmod(0o4755)
    (tree / "shut").mkdir(mode=0o700)
    (tree / "shut/away").write_text("x")
    (tree / "shut").chmod(0)
    (tree / "link").symlink_to("/etc")
    (tree / f"layer{number}").write_text(f"{number}")


def store(
    world: World, tag: str, tmp_path: Path, *kinds: FilesystemKind, ids: Ids | None = None
) -> None:
    """Put an image with real layers where ``tag`` is."""
    layers = []
    for number, kind in enumerate(kinds):
        tree = tmp_path / f"{tag}{number}"
        fill(tree, number)
        layers.append(make_layer(tree, tmp_path / f"{tag}.{number}", kind=kind, epoch=0, ids=ids))
    config = ImageConfig(architecture="amd64", run={"Entrypoint": ["/bin/tool"]})
    body = config.to_bytes(*(layer.digest for layer in layers), epoch=0, created_by="test")
    repository = LayoutRepository(world.images, writable=True)
    put_image(repository, layers, body, tag=tag)


def published(world: World, tag: str) -> tuple[LayoutRepository, VerifiedImage]:
    verified = world.publish().verified
    target = next(one for one in verified.install.targets if one.service_name == tag)
    registry = world.registry.repository("mos")
    assert isinstance(registry, LayoutRepository)
    return registry, verify_image(registry, target, verified.publisher)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        ("squashfs", "kernel"),
        ("squashfs", "fuse"),
        ("squashfs", "unpacked"),
        ("erofs", "kernel"),
        ("erofs", "unpacked"),
    ],
)
@pytest.mark.parametrize("there", [True, False])
def test_what_is_shown_is_the_image_and_cannot_be_changed(
    world: World, tmp_path: Path, kind: FilesystemKind, way: Way, there: bool
) -> None:
    store(world, "zot", tmp_path, kind)
    registry, image = published(world, "zot")
    place, cache = tmp_path / "place", tmp_path / "cache, with:odd\\characters"
    if there:
        place.mkdir()
    assert show(registry, image, place, cache=cache, wanted=way) == way
    try:
        assert names(place) == ["bin", "layer0", "link", "shut"]
        assert (place / "bin/tool").read_bytes() == b"#!/bin/sh\n" * 2000
        assert (place / "link").readlink() == Path("/etc")
        assert (place / "shut/away").read_text() == "x"
        assert is_mounted(place) == (way != "unpacked")
        assert (place / "bin/tool").stat().st_mode & 0o222 == (0o200 if way != "unpacked" else 0)
        if way == "unpacked":
            assert (place / "bin/tool").stat().st_mode & 0o7000 == 0
            assert place.stat().st_mode & 0o222 == 0
        else:
            with pytest.raises(OSError, match="Read-only") as caught:
                (place / "new").write_text("x")
            assert caught.value.errno == errno.EROFS
        assert [path.name for path in cache.iterdir()] == ["shown"]
        with pytest.raises(ConflictError):
            show(registry, image, place, cache=cache)
    finally:
        shown = hide(place, cache=cache)
    assert (shown.way, shown.path) == (way, str(place))
    assert names(place) == []
    assert not is_mounted(place)
    with pytest.raises(MissingError, match="nothing is shown"):
        hide(place, cache=cache)


@pytest.mark.root
@pytest.mark.parametrize("kind", ["squashfs", "erofs"])
def test_what_root_unpacks_is_without_owners_and_devices_and_never_harms(
    world: World, tmp_path: Path, kind: FilesystemKind
) -> None:
    """While programs still have their owners and set-user-id bits, nobody else can reach them."""
    tree = tmp_path / "zot0"
    (tree / "own").mkdir(parents=True)
    os.chown(tree / "own", 1000, 1000)
    for name in ("own/tool", "tool"):
        (tree / name).write_text("x")
        os.chown(tree / name, 1000, 1000)
        (tree / name).chmod(0o6755)
    (tree / "own/link").symlink_to("/etc")
    os.chown(tree / "own/link", 1000, 1000, follow_symlinks=False)
    os.mknod(tree / "disk", 0o666 | stat.S_IFBLK, os.makedev(1, 0))
    (tree / "own").chmod(0o775)
    store(world, "zot", tmp_path, kind, ids=Ids(0, 0, 65536, 0))
    registry, image = published(world, "zot")
    place = tmp_path / "place"
    open_to_all: list[Path] = []

    def look(_line: str) -> None:
        open_to_all.extend(
            path
            for path in place.rglob("*")
            if path.lstat().st_mode & 0o6000 or path.is_block_device()
            if not any(one.lstat().st_mode & 0o777 == 0o700 for one in path.parents)
        )

    show(registry, image, place, cache=tmp_path / "cache", wanted="unpacked", say=look)
    assert open_to_all == []
    assert names(place) == ["bin", "layer0", "link", "own", "shut", "tool"]
    found = [place, *place.rglob("*")]
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in found} == {(0, 0)}
    real = [path for path in found if not path.is_symlink()]
    assert all(path.stat().st_mode & 0o7222 == 0 for path in real)


@pytest.mark.parametrize("way", ["kernel", "unpacked"])
def test_an_image_of_two_layers_is_shown_whole(world: World, tmp_path: Path, way: Way) -> None:
    store(world, "bootkit", tmp_path, "squashfs", "squashfs")
    registry, image = published(world, "bootkit")
    place, cache = tmp_path / "place", tmp_path / "cache:,"
    show(registry, image, place, cache=cache, wanted=way)
    assert names(place) == ["bin", "layer0", "layer1", "link", "shut"]
    hide(place, cache=cache)
    assert names(place) == []
    assert [path.name for path in cache.iterdir()] == ["shown"]


@pytest.mark.parametrize("way", ["kernel", "fuse", "unpacked"])
def test_one_wrong_block_shows_nothing(world: World, tmp_path: Path, way: Way) -> None:
    """The bytes have the digest that is named, but not the root hash that was signed."""
    store(world, "zot", tmp_path, "squashfs")
    layer = tmp_path / "zot.0"
    data = bytearray(layer.read_bytes())
    data[200] ^= 1
    made = make_layer(tmp_path / "zot0", tmp_path / "again", epoch=0)
    layer.write_bytes(bytes(data))
    bad = replace(made, path=layer, digest=Digest.of(bytes(data)))
    config = ImageConfig(architecture="amd64", run={"Entrypoint": ["/bin/tool"]})
    body = config.to_bytes(bad.digest, epoch=0, created_by="test")
    put_image(LayoutRepository(world.images, writable=True), (bad,), body, tag="zot")
    world.publish_carelessly()
    registry, image = carelessly(world)
    place = tmp_path / "place"
    with pytest.raises(VerificationError, match="root hash"):
        show(registry, image, place, cache=tmp_path / "cache", wanted=way)
    assert not place.exists()
    assert list((tmp_path / "cache").iterdir()) == []


def carelessly(world: World) -> tuple[LayoutRepository, VerifiedImage]:
    verified = world.fetch().verified
    registry = world.registry.repository("mos")
    assert isinstance(registry, LayoutRepository)
    return registry, verify_image(registry, verified.install.targets[0], verified.publisher)


def test_a_damaged_blob_shows_nothing(world: World, tmp_path: Path) -> None:
    store(world, "zot", tmp_path, "squashfs")
    registry, image = published(world, "zot")
    path = registry.blob_path(image.layers[0].digest)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DigestError):
        show(registry, image, tmp_path / "place", cache=tmp_path / "cache")
    assert not (tmp_path / "place").exists()


def test_a_folder_in_use_is_left_alone(world: World, tmp_path: Path) -> None:
    store(world, "zot", tmp_path, "squashfs")
    registry, image = published(world, "zot")
    full, link = tmp_path / "full", tmp_path / "folder-link"
    full.mkdir()
    (full / "mine").write_text("x")
    link.symlink_to(tmp_path / "images")
    cases: list[tuple[Path, type[MachineOSError]]] = [
        (full, ConflictError),
        (full / "mine", ConflictError),
        (link, ConflictError),
        (tmp_path / "none/below", MissingError),
    ]
    for place, error in cases:
        with pytest.raises(error):
            show(registry, image, place, cache=tmp_path / "cache")
        with pytest.raises(MissingError):
            hide(place, cache=tmp_path / "cache")
    assert (full / "mine").read_text() == "x"


def test_a_folder_that_was_replaced_meanwhile_is_not_emptied(world: World, tmp_path: Path) -> None:
    store(world, "zot", tmp_path, "squashfs")
    registry, image = published(world, "zot")
    place, cache = tmp_path / "place", tmp_path / "cache"
    show(registry, image, place, cache=cache, wanted="unpacked")
    place.rename(tmp_path / "moved")
    place.mkdir()
    (place / "mine").write_text("x")
    with pytest.raises(MissingError, match="not there any more"):
        hide(place, cache=cache)
    assert (place / "mine").read_text() == "x"


@pytest.mark.parametrize("again", [True, False])
def test_files_of_the_user_are_not_removed_whatever_inode_their_folder_has(
    world: World, tmp_path: Path, again: bool
) -> None:
    """Some file systems give an inode out again at once; or the folder is still the same."""
    store(world, "zot", tmp_path, "squashfs")
    registry, image = published(world, "zot")
    place, cache = tmp_path / "place", tmp_path / "cache"
    show(registry, image, place, cache=cache, wanted="unpacked")
    if again:
        shutil.rmtree(place)
        place.mkdir()
        (record,) = (cache / "shown").iterdir()
        shown = json.loads(record.read_text())
        record.write_text(json.dumps({**shown, "inode": place.stat().st_ino}))
    else:
        place.chmod(0o755)
    (place / "mine").write_text("x")
    with pytest.raises(MissingError, match="or somebody changed it") as caught:
        hide(place, cache=cache)
    assert caught.value.hint.startswith("nothing was removed")
    assert (place / "mine").read_text() == "x"
    with pytest.raises(MissingError, match="nothing is shown"):
        hide(place, cache=cache)


class Interrupted:
    """Ctrl-C when so many lines were said."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, _line: str) -> None:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("way", ["kernel", "unpacked"])
def test_nothing_is_left_of_what_is_interrupted(
    world: World, tmp_path: Path, way: Way, after: int
) -> None:
    store(world, "bootkit", tmp_path, "squashfs", "squashfs")
    registry, image = published(world, "bootkit")
    place, cache = tmp_path / "place", tmp_path / "cache"
    with pytest.raises(KeyboardInterrupt):
        show(registry, image, place, cache=cache, wanted=way, say=Interrupted(after))
    assert not place.exists()
    assert list(cache.iterdir() if cache.exists() else ()) == []


@pytest.mark.parametrize("way", ["kernel", "fuse", "unpacked"])
def test_what_cannot_be_recorded_is_not_shown(world: World, tmp_path: Path, way: Way) -> None:
    """The last step fails, when all is there: it goes again."""
    store(world, "zot", tmp_path, "squashfs")
    registry, image = published(world, "zot")
    place, cache = tmp_path / "place", tmp_path / "cache"
    cache.mkdir()
    (cache / "shown").write_text("in the way")
    with pytest.raises(OSError, match="shown"):
        show(registry, image, place, cache=cache, wanted=way)
    assert not place.exists()
    assert not is_mounted(place)
