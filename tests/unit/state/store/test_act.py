"""Images come into the store whole, and what is there is looked at on the disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.disk import LoopDisk
from machineos.core.digest import Digest
from machineos.document.product.artifacts import ROOT_HASH_SIGNATURE
from machineos.errors import DigestError, MissingError, VerificationError
from machineos.host.disk import tools
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.documents import Descriptor
from machineos.state.store.act import is_whole, store_image
from unit.oci.samples import LAYER, Image, put_artifact, put_image

MARK = hashlib.sha512(b"a service").digest()
BIG = os.urandom(1 << 20) + MARK + os.urandom(5000)
KIND = ROOT_HASH_SIGNATURE


@pytest.fixture
def source(tmp_path: Path) -> LayoutRepository:
    return LayoutRepository(tmp_path / "staged", writable=True)


@pytest.fixture
def image(source: LayoutRepository) -> Image:
    made = put_image(source, "1.0", (BIG,))
    put_artifact(source, made.root, b"root hash signature", KIND)
    put_artifact(source, made.root, b"something else", "application/of.others")
    return made


def store(source: LayoutRepository, folder: Path, image: Image) -> tuple[Digest, ...]:
    return store_image(source.path, folder, image.root.digest, tag="kept")


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_image_and_signature_arrive_and_nothing_else(
    source: LayoutRepository, image: Image, tmp_path: Path
) -> None:
    assert store(source, tmp_path / "disk/mos", image) == ()
    stored = LayoutRepository(tmp_path / "disk/mos")
    assert stored.tags() == ("kept",)
    assert stored.resolve("kept") == image.root
    assert stored.blob(image.layers[0], limit=len(BIG)) == BIG
    (found,) = stored.referrers(image.root.digest)
    assert found.artifact_type == KIND


def test_storing_again_changes_nothing(
    source: LayoutRepository, image: Image, tmp_path: Path
) -> None:
    folder = tmp_path / "mos"
    store(source, folder, image)
    before = content(folder)
    inodes = {path: path.stat().st_ino for path in folder.rglob("*")}
    assert store(source, folder, image) == ()
    assert content(folder) == before
    assert {path: path.stat().st_ino for path in folder.rglob("*")} == inodes


def test_the_name_of_a_new_store_is_synced_last(
    source: LayoutRepository, image: Image, tmp_path: Path
) -> None:
    synced: list[Path] = []

    def note(descriptor: int) -> None:
        assert LayoutRepository(tmp_path / "disk/mos").tags() == ("kept",)
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())

    store_image(source.path, tmp_path / "disk/mos", image.root.digest, tag="kept", sync=note)
    assert synced == [tmp_path / "disk"]


@pytest.mark.parametrize("change", ["flipped", "shorter", "longer", "empty"])
@pytest.mark.parametrize("which", ["layer", "manifest", "signature"])
def test_a_damaged_blob_is_found_named_and_replaced(
    source: LayoutRepository, image: Image, tmp_path: Path, which: str, change: str
) -> None:
    """Review: it was trusted by its name (copy) or its size (put), and never repaired."""
    folder = tmp_path / "mos"
    store(source, folder, image)
    before = content(folder)
    signature = source.referrers(image.root.digest, artifact_type=KIND)[0].digest
    digest = {
        "layer": image.layers[0].digest, "manifest": image.root.digest, "signature": signature,
    }[which]  # fmt: skip
    path = LayoutRepository(folder).blob_path(digest)
    data = path.read_bytes()
    flipped = data[:-1] + bytes([data[-1] ^ 1])
    bad = {"flipped": flipped, "shorter": data[:-1], "longer": data + b"x", "empty": b""}[change]
    path.chmod(0o644)
    path.write_bytes(bad)
    assert store(source, folder, image) == (digest,)
    assert content(folder) == before
    assert store(source, folder, image) == ()


def test_a_missing_blob_comes_back_and_is_no_damage(
    source: LayoutRepository, image: Image, tmp_path: Path
) -> None:
    folder = tmp_path / "mos"
    store(source, folder, image)
    before = content(folder)
    LayoutRepository(folder).blob_path(image.layers[0].digest).unlink()
    assert store(source, folder, image) == ()
    assert content(folder) == before


@pytest.mark.system
def test_damage_that_only_the_disk_knows_of_is_found(
    source: LayoutRepository, image: Image, tmp_path: Path
) -> None:
    """The page cache still gives the good bytes."""
    disk = LoopDisk(tmp_path / "disk", size=64 << 20)
    try:
        tools.make_filesystem("ext4", disk.device, label="x")
        folder = disk.mount("ext4") / "mos"
        store(source, folder, image)
        assert disk.damage(MARK) == 1
        path = LayoutRepository(folder).blob_path(image.layers[0].digest)
        assert path.read_bytes() == BIG
        assert store(source, folder, image) == (image.layers[0].digest,)
        assert store(source, folder, image) == ()
    finally:
        disk.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[LoopDisk]:
    made = LoopDisk(tmp_path / "disk", size=64 << 20)
    tools.make_filesystem("ext4", made.device, label="x")
    yield made
    made.close()


@pytest.mark.system
def test_a_power_cut_right_after_it_leaves_it_whole(
    source: LayoutRepository, image: Image, disk: LoopDisk
) -> None:
    store(source, disk.mount("ext4", options="commit=300") / "mos", image)
    left = disk.cut()
    try:
        stored = LayoutRepository(left.mount("ext4") / "mos")
        assert stored.resolve("kept") == image.root
        assert stored.blob(image.layers[0], limit=len(BIG)) == BIG
        assert len(stored.referrers(image.root.digest, artifact_type=KIND)) == 1
    finally:
        left.close()


def test_a_damaged_source_gets_no_name(
    source: LayoutRepository, image: Image, tmp_path: Path
) -> None:
    path = source.blob_path(image.layers[0].digest)
    path.chmod(0o644)
    path.write_bytes(BIG[:-1] + bytes([BIG[-1] ^ 1]))
    with pytest.raises(DigestError):
        store(source, tmp_path / "mos", image)
    assert LayoutRepository(tmp_path / "mos").tags() == ()
    assert not LayoutRepository(tmp_path / "mos").has_blob(image.layers[0].digest)
    with pytest.raises(MissingError):
        store_image(source.path, tmp_path / "mos", Digest.of(b"none"), tag="x")


def test_a_signature_that_cannot_be_read_is_not_left_out_in_silence(
    source: LayoutRepository, image: Image, tmp_path: Path
) -> None:
    """Without it the image would be there, and the machine would not start."""
    entry = source.referrers(image.root.digest, artifact_type=KIND)[0]
    path = source.blob_path(Digest.of(b"root hash signature"))
    path.chmod(0o644)
    path.write_bytes(b"root hash signaturE")
    with pytest.raises(VerificationError) as caught:
        store(source, tmp_path / "mos", image)
    start = f"image {image.root.digest}: a signature of it cannot be stored: {entry.digest}"
    assert caught.value.message.startswith(start)


def test_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"data")
    blob = Descriptor(media_type=LAYER, digest=Digest.of(b"data"), size=4)
    assert is_whole(path, blob)
    for other in (b"dat", b"data!", b"Data", b""):
        path.write_bytes(other)
        assert not is_whole(path, blob)
    assert not is_whole(tmp_path / "none", blob)
    path.unlink()
    path.symlink_to("elsewhere")
    assert not is_whole(path, blob)
