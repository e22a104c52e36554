"""From an image to what a machine has of it, through the registry of every product."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from machineos.build.publish.verify import verify_images
from machineos.document.verify.published import fetch_verified
from machineos.install import fetch
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.place import Place
from unit.document.conftest import NOW, PRODUCT
from unit.registries import opened

if TYPE_CHECKING:
    from pathlib import Path

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
            inspected = fetch.inspect_image(registry, target, seen.verified.publisher)
            fetch.fetch_image(registry, target, inspected.signatures, layout)
            digest = layout.resolve(target.tag).digest
            assert digest == target.image
            assert len(layout.referrers(digest)) == 1
