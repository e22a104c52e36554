from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from machineos.build.recipe.filesystem import make_layer, verify_layer
from machineos.build.recipe.veritylayer import VerityLayer
from machineos.errors import ToolError, VerificationError
from machineos.oci.model.atomfs import FilesystemKind, parse_layer_type, root_hash_of

EPOCH = 1_700_000_000
KINDS = [
    pytest.param("squashfs", marks=pytest.mark.tool("mksquashfs")),
    pytest.param("erofs", marks=pytest.mark.tool("mkfs.erofs")),
]
pytestmark = pytest.mark.tool("veritysetup")


def tree(folder: Path, names: list[str], *, now: float = 5.0) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text(f"content of {name} " * 200)
        (folder / name).chmod(0o640)
        os.setxattr(folder / name, "user.note", name.encode())
        os.utime(folder / name, (now, now))
    (folder / "link").symlink_to("a")
    (folder / "hard").hardlink_to(folder / "b")
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_same_tree_same_bytes(tmp_path: Path, kind: FilesystemKind) -> None:
    names = [f"f{i}" for i in range(40)]
    one = tree(tmp_path / "1", ["a", "b", *names])
    two = tree(tmp_path / "2", [*reversed(names), "b", "a"], now=9.0)
    first = make_layer(one, tmp_path / "one", kind=kind, epoch=EPOCH)
    second = make_layer(two, tmp_path / "two", kind=kind, epoch=EPOCH)
    assert first.digest == second.digest
    assert first.root_hash == second.root_hash
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    other = make_layer(one, tmp_path / "other", kind=kind, epoch=EPOCH + 1)
    assert other.digest != first.digest


@pytest.mark.parametrize("kind", KINDS)
def test_the_layer_is_what_it_says(tmp_path: Path, kind: FilesystemKind) -> None:
    layer = make_layer(tree(tmp_path / "t", ["a", "b"]), tmp_path / "l", kind=kind, epoch=EPOCH)
    data = layer.path.read_bytes()
    assert layer.size == len(data)
    assert layer.digest.hex == hashlib.sha256(data).hexdigest()
    assert layer.data_size % 4096 == 0
    assert data[layer.data_size : layer.data_size + 6] == b"verity"
    assert root_hash_of(layer.descriptor) == layer.root_hash
    found = parse_layer_type(layer.media_type)
    assert found is not None
    assert found.filesystem == kind
    verify_layer(layer.path, kind, root_hash=layer.root_hash, what="layer")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["l", "t"]


@pytest.mark.tool("mksquashfs")
def test_times_can_be_kept(tmp_path: Path) -> None:
    one = tree(tmp_path / "1", ["a", "b"], now=5.0)
    two = tree(tmp_path / "2", ["a", "b"], now=6.0)
    for folder in (one, two):
        os.utime(folder, (7, 7))
        os.utime(folder / "link", (7, 7), follow_symlinks=False)

    def made(folder: Path) -> VerityLayer:
        return make_layer(folder, tmp_path / "l", epoch=EPOCH, keep_times=True)

    assert made(one).digest == made(one).digest
    assert made(one).digest != made(two).digest


@pytest.mark.tool("mksquashfs")
def test_one_flipped_bit_anywhere_is_found(tmp_path: Path) -> None:
    folder = tree(tmp_path / "t", ["a", "b"])
    (folder / "noise").write_bytes(
        b"".join(hashlib.sha256(b"%d" % i).digest() for i in range(20000))
    )
    layer = make_layer(folder, tmp_path / "l", epoch=EPOCH)
    whole = layer.path.read_bytes()
    size = layer.data_size
    assert layer.size > size + 3 * 4096
    # Start, superblock, files, padding, tree: superblock with its salt, top, leaves.
    for where in (0, 40, 100, size // 2, size - 1, size, size + 90, size + 4096, size + 8192, -1):
        damaged = bytearray(whole)
        damaged[where] ^= 1
        layer.path.write_bytes(damaged)
        with pytest.raises(VerificationError):
            verify_layer(layer.path, "squashfs", root_hash=layer.root_hash, what="layer")
    layer.path.write_bytes(whole)
    verify_layer(layer.path, "squashfs", root_hash=layer.root_hash, what="layer")


@pytest.mark.tool("mksquashfs")
def test_a_layer_cut_short_or_of_another_image_is_refused(tmp_path: Path) -> None:
    layer = make_layer(tree(tmp_path / "t", ["a", "b"]), tmp_path / "l", epoch=EPOCH)
    other = make_layer(tree(tmp_path / "u", ["a", "b", "c"]), tmp_path / "m", epoch=EPOCH)
    whole = layer.path.read_bytes()
    for data in (whole[:50], whole[: layer.data_size], whole[:-4096], whole + bytes(4096)):
        layer.path.write_bytes(data)
        with pytest.raises(VerificationError):
            verify_layer(layer.path, "squashfs", root_hash=layer.root_hash, what="layer")
    layer.path.write_bytes(whole)
    with pytest.raises(VerificationError, match="does not match its root hash"):
        verify_layer(layer.path, "squashfs", root_hash=other.root_hash, what="layer")
    stolen = whole[: layer.data_size] + other.path.read_bytes()[other.data_size :]
    layer.path.write_bytes(stolen)
    with pytest.raises(VerificationError):
        verify_layer(layer.path, "squashfs", root_hash=other.root_hash, what="layer")


@pytest.mark.tool("mksquashfs")
def test_a_missing_tree_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ToolError):
        make_layer(tmp_path / "none", tmp_path / "l", epoch=EPOCH)
    assert list(tmp_path.iterdir()) == []
