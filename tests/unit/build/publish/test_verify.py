"""Verifying a published manifest as a machine does, and reading every byte of it."""

from __future__ import annotations

import pytest

from fakes.layers import AnyLayer, head_of, layer_content, tree_of
from machineos.build.publish.verify import verify_images
from machineos.core.digest import Digest
from machineos.document.verify.published import VerifiedInstall, fetch_verified
from machineos.errors import (
    DocumentError,
    MissingError,
    PolicyError,
    SignatureError,
    VerificationError,
)
from machineos.oci.layout.folder import LayoutRepository
from unit.document.conftest import NOW, PRODUCT, SOURCE, SQUASHFS, World, put_image

LOOKS = {True: AnyLayer(), False: None}
LAYER = Digest.of(layer_content(b"zot"))


def fetch(world: World) -> VerifiedInstall:
    return fetch_verified(
        world.registry.repository("machine/install"),
        "1.0.0",
        ca_pem=world.authority.pem,
        at=NOW,
        product=PRODUCT,
    ).verified


@pytest.mark.parametrize("deep", [True, False])
def test_what_was_published(published_world: World, deep: bool) -> None:
    verified = fetch(published_world)
    images = verify_images(published_world.registry, verified, deep=LOOKS[deep])
    assert tuple(image.target for image in images) == verified.install.targets
    assert images[0].layers[0].digest == LAYER
    assert all(set(image.signatures) == {one.digest for one in image.layers} for image in images)
    assert [len(image.layers) for image in images] == [1, 1, 2]


@pytest.mark.parametrize("part", ["layer", "config"])
def test_a_blob_that_is_missing_is_found_without_reading(published_world: World, part: str) -> None:
    world, verified = published_world, fetch(published_world)
    image = verify_images(world.registry, verified, deep=None)[1]
    blob = (image.config if part == "config" else image.layers[0]).digest
    world.registry.repository("mos").blob_path(blob).unlink()
    with pytest.raises(MissingError) as caught:
        verify_images(world.registry, verified, deep=None)
    assert caught.value.message == f"image of hostfs: blob {blob} is missing"


def test_only_deep_reads_the_layers(world: World) -> None:
    """Without it the head of each is read: damage further on is not seen."""
    content = layer_content(b"zot" * (1 << 20))
    put_image(LayoutRepository(world.images, writable=True), "zot", contents=(b"zot" * (1 << 20),))
    world.publish()
    verified, layer = fetch(world), Digest.of(content)
    store = world.registry.repository("mos")
    path = store.blob_path(layer)
    path.write_bytes(content[:-1] + b"x")
    verify_images(world.registry, verified, deep=None)
    with pytest.raises(VerificationError) as caught:
        verify_images(world.registry, verified, deep=AnyLayer())
    lines = caught.value.message.split("\n")
    assert lines[0] == f"{store.name}: is damaged"
    assert lines[1].startswith(f"  image of zot: {layer}: {store.name}: blob {layer}: digest is")
    assert caught.value.hint == (
        "remove the damaged blobs from the registry or the layout, then publish it again"
    )


def test_deep_tells_all_damage_of_the_images_and_not_of_what_refers_to_them(
    published_world: World,
) -> None:
    world, verified = published_world, fetch(published_world)
    store = world.registry.repository("mos")
    for target in verified.install.targets:
        for entry in store.referrers(target.image):
            store.put_manifest(
                store.manifest(str(entry.digest))[1], media_type=entry.media_type, tag=None
            )
    images = verify_images(world.registry, verified, deep=AnyLayer())
    for image in images:
        store.blob_path(image.layers[0].digest).unlink()
    with pytest.raises(VerificationError) as caught:
        verify_images(world.registry, verified, deep=AnyLayer())
    lines = caught.value.message.split("\n")[1:]
    assert [line.split(":")[0] for line in lines] == [
        "  image of zot", "  image of hostfs", "  image of bootkit",
    ]  # fmt: skip


def test_a_layer_that_no_machine_mounts(world: World) -> None:
    """Deep looks for the hash tree too, after all that is damaged."""
    images = LayoutRepository(world.images, writable=True)
    bad = head_of(1).ljust(4096, b"\0") + tree_of(2)[:4096]
    put_image(images, "zot", contents=(bad,), raw=True)
    world.publish_carelessly()
    assert len(verify_images(world.registry, fetch(world), deep=None)) == 3
    with pytest.raises(VerificationError) as caught:
        verify_images(world.registry, fetch(world), deep=AnyLayer())
    assert caught.value.rule == "layer-mountable"
    assert caught.value.message == (
        f"image of zot: layer {Digest.of(bad)}: its hash tree covers 8192 of 4096 bytes"
    )
    put_image(images, "bootkit", contents=(layer_content(b"1"), b"hsqs"), raw=True)
    put_image(images, "zot")
    world.publish_carelessly()
    for deep in (False, True):
        with pytest.raises(
            VerificationError, match=r"image of bootkit: .* is not a squashfs image"
        ):
            verify_images(world.registry, fetch(world), deep=LOOKS[deep])


def test_one_layer_under_two_types(world: World) -> None:
    """Deep reads the bytes once as each type."""
    images = LayoutRepository(world.images, writable=True)
    both = layer_content(b"both")
    squashfs = both[:1024] + bytes(128) + both[1152:]  # an EROFS no more
    erofs = SQUASHFS.replace("squashfs", "erofs")
    put_image(images, "hostfs", contents=(both,), raw=True)
    put_image(images, "bootkit", contents=(both, both), raw=True, media_type=erofs)
    world.publish_carelessly()
    assert len(verify_images(world.registry, fetch(world), deep=AnyLayer())) == 3
    put_image(images, "hostfs", contents=(squashfs,), raw=True)
    put_image(images, "bootkit", contents=(both, squashfs), raw=True, media_type=erofs)
    world.publish_carelessly()
    with pytest.raises(VerificationError, match=r"image of bootkit: .* is not an EROFS image"):
        verify_images(world.registry, fetch(world), deep=AnyLayer())


def test_a_root_hash_that_nobody_signed(published_world: World) -> None:
    world, verified = published_world, fetch(published_world)
    store = world.registry.repository("mos")
    for entry in store.referrers(verified.install.targets[0].image):
        store.blob_path(entry.digest).unlink()
    with pytest.raises(SignatureError, match="image of zot: nobody signed the root hash"):
        verify_images(world.registry, verified, deep=None)


def test_a_container_that_cannot_run(world: World) -> None:
    images = LayoutRepository(world.images, writable=True)
    put_image(images, "zot", run={"Entrypoint": None})
    put_image(images, "bootkit", run={"Entrypoint": None})  # it is only mounted
    world.publish_carelessly()
    with pytest.raises(DocumentError) as caught:
        verify_images(world.registry, fetch(world), deep=None)
    assert caught.value.name == "configuration of the image of zot"


def test_a_complete_manifest_that_does_not_boot(world: World) -> None:
    world.publish_carelessly(boots=False)
    with pytest.raises(PolicyError, match="the manifest: has no target hostfs"):
        verify_images(world.registry, fetch(world), deep=None)
    world.publish_carelessly(SOURCE.replace("complete", "partial"), boots=False)
    assert len(verify_images(world.registry, fetch(world), deep=AnyLayer())) == 1
