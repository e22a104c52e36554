"""Verifying a published manifest as a machine does, and reading every byte of it."""

from __future__ import annotations

import pytest

from fakes.layers import layer_content
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
from unit.document.conftest import NOW, PRODUCT, SOURCE, World, put_image

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
    images = verify_images(published_world.registry, verified, deep=deep)
    assert tuple(image.target for image in images) == verified.install.targets
    assert images[0].layer.digest == LAYER
    assert all(image.signature for image in images)


@pytest.mark.parametrize("part", ["layer", "config"])
def test_a_blob_that_is_missing_is_found_without_reading(published_world: World, part: str) -> None:
    world, verified = published_world, fetch(published_world)
    image = verify_images(world.registry, verified, deep=False)[1]
    blob = getattr(image, part).digest
    world.registry.repository("mos").blob_path(blob).unlink()
    with pytest.raises(MissingError) as caught:
        verify_images(world.registry, verified, deep=False)
    assert caught.value.message == f"image of hostfs: blob {blob} is missing"


def test_only_deep_reads_the_layers(published_world: World) -> None:
    world, verified = published_world, fetch(published_world)
    store = world.registry.repository("mos")
    path = store.blob_path(LAYER)
    path.write_bytes(path.read_bytes()[::-1])
    verify_images(world.registry, verified, deep=False)
    with pytest.raises(VerificationError) as caught:
        verify_images(world.registry, verified, deep=True)
    lines = caught.value.message.split("\n")
    assert lines[0] == f"{store.name}: is damaged"
    assert lines[1].startswith(f"  image of zot: {LAYER}: {store.name}: blob {LAYER}: digest is")
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
    images = verify_images(world.registry, verified, deep=True)
    for image in images:
        store.blob_path(image.layer.digest).unlink()
    with pytest.raises(VerificationError) as caught:
        verify_images(world.registry, verified, deep=True)
    lines = caught.value.message.split("\n")[1:]
    assert [line.split(":")[0] for line in lines] == [
        "  image of zot", "  image of hostfs", "  image of bootkit",
    ]  # fmt: skip


def test_a_root_hash_that_nobody_signed(published_world: World) -> None:
    world, verified = published_world, fetch(published_world)
    store = world.registry.repository("mos")
    for entry in store.referrers(verified.install.targets[0].image):
        store.blob_path(entry.digest).unlink()
    with pytest.raises(SignatureError, match="image of zot: nobody signed the root hash"):
        verify_images(world.registry, verified, deep=False)


def test_a_container_that_cannot_run(world: World) -> None:
    images = LayoutRepository(world.images, writable=True)
    put_image(images, "zot", run={"Entrypoint": None})
    put_image(images, "bootkit", run={"Entrypoint": None})  # it is only mounted
    world.publish_carelessly()
    with pytest.raises(DocumentError) as caught:
        verify_images(world.registry, fetch(world), deep=False)
    assert caught.value.name == "configuration of the image of zot"


def test_a_complete_manifest_that_does_not_boot(world: World) -> None:
    world.publish_carelessly(boots=False)
    with pytest.raises(PolicyError, match="the manifest: has no target hostfs"):
        verify_images(world.registry, fetch(world), deep=False)
    world.publish_carelessly(SOURCE.replace("complete", "partial"), boots=False)
    assert len(verify_images(world.registry, fetch(world), deep=True)) == 1
