"""Fetching and verifying before the disk is touched: every refusal, and what it leaves behind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from machineos.core.digest import Digest
from machineos.document.product.artifacts import ROOT_HASH_SIGNATURE
from machineos.document.verify.published import fetch_verified
from machineos.errors import (
    DigestError,
    MachineOSError,
    MissingError,
    PolicyError,
    SignatureError,
    SpaceError,
    VerificationError,
)
from machineos.install.stage import Staged, stage
from machineos.oci.graph.copy import copy_graph
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.documents import parse_manifest
from unit.document.conftest import NOW, OTHER_PRODUCT, PRODUCT, SOURCE, World, put_image
from unit.oci.samples import put_artifact

ONE_LAYER = SOURCE.replace("oci:{images}:zot", "oci:{images}:single")


@pytest.fixture
def sink(tmp_path: Path) -> LayoutRepository:
    return LayoutRepository(tmp_path / "sink", writable=True)


@pytest.fixture
def ready(world: World) -> World:
    """A manifest of images that each have one layer."""
    put_image(LayoutRepository(world.images, writable=True), "single")
    world.publish(ONE_LAYER)
    return world


def fetch(world: World, sink: LayoutRepository, **changes: object) -> Staged:
    arguments = {
        "ca_pem": world.authority.pem, "at": NOW, "product": PRODUCT, "room": 1 << 30,
        "say": lambda _text: None, **changes,
    }  # fmt: skip
    return stage(world.registry, "machine/install", "1.0.0", sink, **arguments)


def blobs(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and "blobs" in path.parts]


def nothing_named(sink: LayoutRepository) -> None:
    """No tag, and no blob whose content is not what its name says."""
    assert sink.tags() == ()
    for path in blobs(sink.path):
        if not path.name.startswith("."):
            assert Digest.of(path.read_bytes()).hex == path.name


def test_all_of_it_arrives(ready: World, sink: LayoutRepository) -> None:
    said: list[str] = []
    staged = fetch(ready, sink, say=said.append)
    targets = staged.fetched.verified.install.targets
    assert [target.service_name for target in targets] == ["zot", "hostfs", "bootkit"]
    assert set(staged.images) == {"zot", "hostfs", "bootkit"}
    total = 0
    for image in staged.images.values():
        for part in (image.config, *image.layers):
            data = sink.blob_path(part.digest).read_bytes()
            part.digest.check(data, "blob")
            total += len(data)
    assert staged.size == total
    for target in targets:
        assert sink.resolve(target.digest).digest == target.image
        assert sink.referrers(target.image, artifact_type=ROOT_HASH_SIGNATURE)
    assert "verified" in said[0]
    assert len(said) == 4


def test_staging_again_changes_nothing(ready: World, sink: LayoutRepository) -> None:
    fetch(ready, sink)
    before = sorted(blobs(sink.path))
    fetch(ready, sink)
    assert sorted(blobs(sink.path)) == before


def test_another_product(ready: World, sink: LayoutRepository) -> None:
    with pytest.raises(PolicyError, match="product"):
        fetch(ready, sink, product=OTHER_PRODUCT)
    nothing_named(sink)


def test_another_ca(ready: World, sink: LayoutRepository, stranger: object) -> None:
    with pytest.raises(SignatureError):
        fetch(ready, sink, ca_pem=stranger.pem)
    nothing_named(sink)


def test_a_partial_manifest(world: World, sink: LayoutRepository) -> None:
    world.publish(world.source().replace("complete", "partial"))
    with pytest.raises(PolicyError, match="partial"):
        fetch(world, sink)
    nothing_named(sink)


def test_an_image_that_no_machine_mounts(world: World, sink: LayoutRepository) -> None:
    """Two layers, each signed: the initrd refuses such an image, when the old disk is gone."""
    world.publish_carelessly(SOURCE.replace("oci:{images}:zot", "oci:{images}:two"))
    with pytest.raises(VerificationError, match="image of zot: has 2 layers"):
        fetch(world, sink)
    nothing_named(sink)


@pytest.mark.parametrize("missing", ["hostfs", "bootkit"])
def test_a_manifest_without_what_boots(world: World, sink: LayoutRepository, missing: str) -> None:
    other = {"hostfs": "bootkit", "bootkit": "hostfs"}[missing]
    kind = {"hostfs": "hostfs", "bootkit": "fs-only"}[other]
    entry = (
        f'  - service_name: {other}\n    source: "oci:{{images}}:{other}"\n    version: 1.0.0\n'
        f"    service_type: {kind}\n    network:\n      type: host\n"
    )
    world.publish_carelessly(SOURCE + entry, boots=False)
    with pytest.raises(PolicyError, match=f"no target {missing}"):
        fetch(world, sink)
    nothing_named(sink)


def test_no_room(ready: World, sink: LayoutRepository) -> None:
    size = fetch(ready, LayoutRepository(sink.path.with_name("probe"), writable=True)).size
    with pytest.raises(SpaceError, match="there is room for"):
        fetch(ready, sink, room=size - 1)
    nothing_named(sink)
    assert fetch(ready, sink, room=size).size == size


def layer_of(world: World, name: str) -> Path:
    images = LayoutRepository(world.images)
    _, data = images.manifest(name)
    digest = parse_manifest(data, name=name).layers[0].digest
    return world.registry.repository("mos").blob_path(digest)


@pytest.mark.parametrize("name", ["single", "hostfs", "bootkit"])
def test_a_wrong_blob(ready: World, sink: LayoutRepository, name: str) -> None:
    """One flipped bit, same length, under the right name: refused, and never under its name."""
    path = layer_of(ready, name)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(data))
    with pytest.raises(DigestError):
        fetch(ready, sink)
    assert not sink.blob_path(Digest("sha256", path.name)).exists()
    for blob in blobs(sink.path):
        if not blob.name.startswith("."):
            assert Digest.of(blob.read_bytes()).hex == blob.name


@pytest.mark.parametrize("change", ["shorter", "longer", "gone"])
def test_a_blob_of_another_length(ready: World, sink: LayoutRepository, change: str) -> None:
    path = layer_of(ready, "hostfs")
    data = path.read_bytes()
    path.chmod(0o644)
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-1] if change == "shorter" else data + b"x")
    with pytest.raises((DigestError, MissingError)):
        fetch(ready, sink)
    assert not sink.blob_path(Digest("sha256", path.name)).exists()


def test_a_layer_whose_root_hash_nobody_signed(ready: World, sink: LayoutRepository) -> None:
    """The signatures are taken out of the registry: images alone are not enough."""
    targets = fetch_targets(ready)
    clean = ready.root.with_name("clean")
    shutil.move(ready.root / "mos", clean)
    bare = ready.registry.repository("mos")
    for target in targets:
        copy_graph(LayoutRepository(clean), bare, target.digest, tag=target.tag)
    with pytest.raises(SignatureError, match="nobody signed the root hash"):
        fetch(ready, sink)


def fetch_targets(world: World) -> tuple:
    return fetch_verified(
        world.registry.repository("machine/install"), "1.0.0", ca_pem=world.authority.pem, at=NOW,
        product=PRODUCT,
    ).verified.install.targets  # fmt: skip


def test_a_root_hash_signed_by_a_stranger(
    ready: World, sink: LayoutRepository, stranger: object
) -> None:
    """Published a second time by somebody else, under another name: his signatures do not count."""
    clean = ready.root.with_name("clean")
    shutil.move(ready.root / "mos", clean)
    ready.publish(ONE_LAYER, name="other/thing", signer=stranger.publisher, ca_pem=stranger.pem)
    with pytest.raises(SignatureError, match="nobody signed the root hash"):
        fetch(ready, sink)


def test_what_strangers_attached_is_left_behind(
    ready: World, sink: LayoutRepository, stranger: object
) -> None:
    """Memory is counted for the images only: a few large referrers would fill it."""
    images = ready.registry.repository("mos")
    alone = fetch(ready, LayoutRepository(sink.path.with_name("alone"), writable=True))
    for target in fetch_targets(ready):
        subject = images.resolve(target.digest)
        for number in range(3):
            put_artifact(images, subject, b"%d" % number * 100_000, ROOT_HASH_SIGNATURE)
    ready.publish(ONE_LAYER, name="other/thing", signer=stranger.publisher, ca_pem=stranger.pem)
    assert fetch(ready, sink) == alone
    names = {path.name for path in blobs(sink.path)}
    assert names == {path.name for path in blobs(sink.path.with_name("alone"))}
    stored = sum(path.stat().st_size for path in blobs(sink.path))
    assert stored < alone.size + 8192 * len(alone.images)


def test_a_tag_that_is_not_there(ready: World, sink: LayoutRepository) -> None:
    arguments = {"ca_pem": b"", "at": NOW, "product": PRODUCT, "room": 1, "say": print}
    with pytest.raises(MachineOSError):
        stage(ready.registry, "machine/install", "9.9.9", sink, **arguments)
    nothing_named(sink)
