"""From an image to what a machine has of it, through the registry of every product."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fakes.repository import MemoryRegistry
from machineos.build.publish.verify import verify_images
from machineos.document.verify.published import fetch_verified
from machineos.errors import AuthError, DocumentError, Fault, TransferError
from machineos.install import fetch
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.place import Place
from machineos.oci.model.repository import Below
from unit.document.conftest import NOW, OTHER_PRODUCT, PRODUCT
from unit.registries import opened

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.document.verify.published import Fetched
    from machineos.errors import MachineOSError
    from machineos.oci.model.repository import Registry, Repository
    from unit.document.conftest import World


@pytest.mark.works("publish, verify, install")
def test_what_is_published_is_what_a_machine_gets(
    product: str, world: World, tmp_path: Path
) -> None:
    with opened(product, tmp_path) as registry:
        published = world.publish(registry=registry, name="shop/install")
        again = world.publish(registry=registry, name="shop/install")
        assert again.descriptor == published.descriptor
        repository = registry.repository("shop/install")
        fetched = fetch_verified(
            repository, "1.0.0", ca_pem=world.authority.pem, at=NOW, product=PRODUCT
        )
        images = verify_images(registry, fetched.verified, deep=None)
        assert len(images) == 3
        place = Place.parse(f"{product}/shop/install:1.0.0", plain_http=True)
        seen = fetch.fetch_manifest(
            registry, place, ca_pem=world.authority.pem, at=NOW, product=PRODUCT
        )
        assert seen == fetched
        layout = LayoutRepository(tmp_path / "staged", writable=True)
        for target in seen.verified.install.targets:
            inspected = fetch.inspect_image(registry, place, target, seen.verified.publisher)
            fetch.fetch_image(registry, place, target, inspected.signatures, layout)
            digest = layout.resolve(target.tag).digest
            assert digest == target.image
            assert len(layout.referrers(digest)) == 1


@pytest.mark.works("publish, verify, install below an owner")
def test_what_an_owner_published_is_found_below_his_name(
    product: str, world: World, tmp_path: Path
) -> None:
    """Where nobody but the registry's own people can write to its top."""
    with opened(product, tmp_path) as registry:
        owned = Below(registry, "acme/line-1")
        world.publish(registry=owned, name="machine/install")
        assert verify_images(owned, fetched(owned, "machine/install", world).verified, deep=None)
        place = Place.parse(f"{product}/acme/line-1/machine/install:1.0.0", plain_http=True)
        seen = fetched(registry, place.name, world).verified
        layout = LayoutRepository(tmp_path / "staged", writable=True)
        for target in seen.install.targets:
            inspected = fetch.inspect_image(registry, place, target, seen.publisher)
            fetch.fetch_image(registry, place, target, inspected.signatures, layout)
            assert layout.resolve(target.tag).digest == target.image
            owned.repository("mos").resolve(target.tag)


def fetched(registry: Registry, name: str, world: World) -> Fetched:
    return fetch_verified(
        registry.repository(name), "1.0.0", ca_pem=world.authority.pem, at=NOW, product=PRODUCT
    )


def test_an_image_that_somebody_else_signed_elsewhere_hides_nothing(world: World) -> None:
    """At the top of the registry is the same image, with the signature of another product."""
    registry = MemoryRegistry()
    other = world.authority.other
    world.publish(registry=registry, name="other/install", signer=other, product=OTHER_PRODUCT)
    world.publish(registry=Below(registry, "acme"), name="install")
    place = Place.parse("h.example/acme/install:1.0.0", plain_http=False)
    seen = fetched(registry, place.name, world).verified
    for target in seen.install.targets:
        assert fetch.inspect_image(registry, place, target, seen.publisher).signatures
    stranger = Place.parse("h.example/other/install:1.0.0", plain_http=False)
    found = fetch.inspect_image(registry, stranger, seen.install.targets[0], seen.publisher)
    assert found.signatures == ()


@pytest.mark.parametrize(
    "error",
    [
        TransferError("HTTP 400: NAME_INVALID", status=400),
        TransferError("HTTP 500", status=500),
        AuthError("HTTP 403", status=403),
        DocumentError("referrers", [Fault("manifests", 0, "is no list")]),
    ],
)
def test_what_is_wrong_with_the_top_hides_nothing(world: World, error: MachineOSError) -> None:
    registry = MemoryRegistry()
    world.publish(registry=Below(registry, "acme"), name="install")
    place = Place.parse("h.example/acme/install:1.0.0", plain_http=False)
    seen = fetched(registry, place.name, world).verified
    for target in seen.install.targets:
        found = fetch.inspect_image(Broken(registry, error), place, target, seen.publisher)
        assert found.signatures


class Broken:
    """A registry that answers with an error about what is at its top."""

    def __init__(self, registry: Registry, error: MachineOSError) -> None:
        self._registry = registry
        self._error = error
        self.name = registry.name

    def repository(self, name: str) -> Repository:
        if name == "mos":
            raise self._error
        return self._registry.repository(name)


def test_where_images_are_looked_for() -> None:
    assert fetch.image_places("install") == ("mos",)
    assert fetch.image_places("machine/install") == ("mos", "machine/mos")
    assert fetch.image_places("a/b/install") == ("mos", "a/mos", "a/b/mos")
