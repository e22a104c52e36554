"""Writing a plan: in which order, what is said, and what is checked of the registry."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from fakes.repository import MemoryRegistry, MemoryRepository
from machineos.build.foreign.signed import signature_tag
from machineos.build.publish.cosigned import cosign
from machineos.build.publish.plan import prepare
from machineos.build.publish.publish import Place, Reporting, publish, write
from machineos.core.digest import Digest
from machineos.document.verify.published import fetch_verified
from machineos.errors import DigestError, DocumentError
from machineos.oci.graph.copy import Progress
from machineos.oci.model.documents import Descriptor
from unit.build.publish.test_plan import image, publishing, wanted
from unit.document.conftest import NOW, PRODUCT, the_authority


@pytest.fixture
def images() -> MemoryRepository:
    made = MemoryRepository("images")
    image(made, "zot")
    image(made, "other", b"other")
    return made


class Recording(MemoryRegistry):
    """Remembers which manifests were stored where, and how many blobs were there before."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[str] = []

    def repository(self, name: str) -> MemoryRepository:
        registry = self

        class Recorded(MemoryRepository):
            def put_blob(self, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
                super().put_blob(descriptor, chunks)

            def put_manifest(
                self, data: bytes, *, media_type: str, tag: str | None = None
            ) -> Descriptor:
                registry.order.append(f"{self.name} {tag and tag[:6]}")
                return super().put_manifest(data, media_type=media_type, tag=tag)

        return self._repositories.setdefault(name, Recorded(f"memory/{name}"))


def test_images_then_proofs_then_the_tag(images: MemoryRepository) -> None:
    registry = Recording()
    said: list[str] = []
    copied: list[Progress] = []
    published = publish(
        publishing(images, wanted(), wanted("other")),
        Place(registry, "machine/install", "1.0.0"),
        Reporting(said.append, copied.append),
    )
    zot, other = images.resolve("zot").digest, images.resolve("other").digest
    assert registry.order == [
        f"memory/mos {zot.hex[:6]}",
        "memory/mos None",
        f"memory/mos {other.hex[:6]}",
        "memory/mos None",
        "memory/machine/install None",
        "memory/machine/install None",
        "memory/machine/install sha256",
        "memory/machine/install 1.0.0",
    ]
    assert said == [
        "find zot at oci:images:zot",
        "find other at oci:images:other",
        "sign the manifest",
        f"copy zot to memory/mos:{zot.short}",
        f"copy other to memory/mos:{other.short}",
        "publish memory/machine/install:1.0.0",
    ]
    assert copied[-1].blobs == copied[-1].blobs_total
    assert registry.repository("mos").tags() == tuple(sorted((zot.hex, other.hex)))
    own = registry.repository("machine/install")
    assert own.tags() == ("1.0.0", signature_tag(published.descriptor.digest))
    assert (published.repository, published.tag) == ("memory/machine/install", "1.0.0")
    assert published.descriptor == own.resolve("1.0.0")
    assert published.created.year == 2025
    fetched = fetch_verified(own, "1.0.0", ca_pem=the_authority().pem, at=NOW, product=PRODUCT)
    assert fetched.verified == published.verified


def test_nobody_has_to_listen(images: MemoryRepository) -> None:
    place = Place(MemoryRegistry(), "machine/install", "1.0.0")
    first = publish(publishing(images), place)
    plan = prepare(publishing(images))
    signature = cosign(plan.artifacts.install.descriptor, the_authority().publisher, place.name)
    assert write(plan, place, Reporting(), signature) == first


def test_a_place_is_checked_when_it_is_named() -> None:
    for name, tag in (("../x", "1"), ("a", "-"), ("", "1"), ("a", "")):
        with pytest.raises(DocumentError):
            Place(MemoryRegistry(), name, tag)


def test_a_registry_that_stores_something_else(images: MemoryRepository) -> None:
    class Changes(MemoryRegistry):
        def repository(self, name: str) -> MemoryRepository:
            class Changed(MemoryRepository):
                def put_manifest(
                    self, data: bytes, *, media_type: str, tag: str | None = None
                ) -> Descriptor:
                    found = super().put_manifest(data, media_type=media_type, tag=tag)
                    if tag != "1.0.0":
                        return found
                    digest = Digest.of(b"other")
                    return Descriptor(media_type=media_type, digest=digest, size=found.size)

            return self._repositories.setdefault(name, Changed(f"memory/{name}"))

    with pytest.raises(DigestError) as caught:
        publish(publishing(images), Place(Changes(), "machine/install", "1.0.0"))
    assert caught.value.message == (
        f"memory/machine/install: stored the manifest as {Digest.of(b'other')}"
    )
