"""What publishing decides where a source, a lock or a registry says something else."""

from __future__ import annotations

import pytest

from fakes.layers import AnyLayer
from fakes.repository import MemoryRegistry, MemoryRepository
from machineos.build.publish.lock import Builder, Lock, LockedImage
from machineos.build.publish.plan import prepare
from machineos.build.publish.together import each
from machineos.build.recipe.use import Use
from machineos.core.digest import Digest, is_digest
from machineos.document.rules.storage import FOLDERS
from machineos.errors import ArchiveError, DigestError, SeveralError, TransferError, UsageError
from machineos.oci.model.documents import MANIFEST, Descriptor, Manifest
from machineos.oci.model.repository import Below, Repository
from unit.build.publish.test_plan import TAR, Converter, image, images, plan, publishing
from unit.document.conftest import World

__all__ = ["images"]


class Refuses(AnyLayer):
    """An inspector that finds something wrong in every layer."""

    def inspect(self, repository: Repository, manifest: Manifest, use: Use) -> None:
        raise ArchiveError("holds a device", rule="member-kind")


class Misses(AnyLayer):
    """An inspector that finds that a folder for what is mounted is missing."""

    def inspect(self, repository: Repository, manifest: Manifest, use: Use) -> None:
        raise ArchiveError("there is no /proc", rule=FOLDERS.name)


def test_what_lacks_a_folder_is_packed_again_where_that_can_be_done(
    images: MemoryRepository,
) -> None:
    converter = Converter(images)
    plan(images, inspector=Misses(), converter=converter)
    assert len(converter.asked) == 1
    with pytest.raises(ArchiveError, match="there is no /proc"):
        plan(images, inspector=Misses())


class Stranger(AnyLayer):
    """An inspector without a record: nothing was packed here."""

    def packed(self, manifest: Manifest) -> bool:
        return not manifest.layers


def test_what_is_wrong_inside_is_not_converted_away(images: MemoryRepository) -> None:
    converter = Converter(images)
    with pytest.raises(ArchiveError, match="holds a device"):
        plan(images, inspector=Refuses(), converter=converter)
    assert converter.asked == []


@pytest.mark.parametrize("packed", [True, False])
def test_the_lock_says_who_packed_an_image(images: MemoryRepository, packed: bool) -> None:
    converter, said = Converter(images), list[str]()
    digest = images.resolve("zot").digest
    lock = Lock(Builder("1"), (LockedImage("oci:images:zot", digest, packed=packed),))
    prepare(publishing(images, inspector=Stranger(), converter=converter, lock=lock), said.append)
    assert [reference for reference, _ in converter.asked] == ([] if packed else [str(digest)])
    assert any("manifest.lock says" in line for line in said) == packed


class Lying(MemoryRepository):
    """A repository that answers a digest with another image."""

    def manifest(self, reference: str) -> tuple[Descriptor, bytes]:
        return super().manifest("evil" if is_digest(reference) else reference)


def test_a_lock_is_about_the_image_that_has_the_digest() -> None:
    lying = Lying("images")
    good = image(lying, "zot")
    image(lying, "evil")
    lock = Lock(Builder("1"), (LockedImage("oci:images:zot", good.digest),))
    with pytest.raises(DigestError, match=f"gives sha256:.* for {good.digest}|asked for"):
        plan(lying, lock=lock)


def test_an_artifact_is_no_image_to_convert(images: MemoryRepository) -> None:
    image(images, "zot", b"tar", kind=TAR, config_type="application/x.y", created="")
    converter = Converter(images)
    plan(images, converter=converter)
    assert len(converter.asked) == 1


class Renames(MemoryRepository):
    """A repository that says that it stored another manifest than it was given."""

    def put_manifest(self, data: bytes, *, media_type: str, tag: str | None = None) -> Descriptor:
        made = super().put_manifest(data, media_type=media_type, tag=tag)
        if tag != "1.0.0":
            return made
        return Descriptor(media_type=media_type, digest=Digest.of(b"other"), size=made.size)


class Shelf(MemoryRegistry):
    def repository(self, name: str) -> MemoryRepository:
        return Renames(name) if name == "machine/install" else super().repository(name)


def test_a_registry_that_stores_something_else(world: World) -> None:
    with pytest.raises(DigestError, match="stored the manifest as"):
        world.publish(registry=Shelf())


def test_a_name_that_leads_to_another_image_is_put_right(world: World) -> None:
    target = world.publish().verified.install.targets[0]
    store = world.registry.repository("mos")
    other = Manifest(media_type=MANIFEST, config=store.resolve(target.tag), layers=())
    store.put_manifest(other.to_bytes(), media_type=MANIFEST, tag=target.tag)
    assert store.resolve(target.tag).digest != target.image
    world.publish()
    assert store.resolve(target.tag).digest == target.image


def test_after_a_network_that_fails_nobody_else_waits() -> None:
    tried: list[int] = []

    def do(number: int) -> int:
        tried.append(number)
        if number == 1:
            raise UsageError("one")
        if number == 2:
            raise TransferError("two")
        return number

    with pytest.raises(SeveralError) as caught:
        each(do, range(4))
    assert [error.message for error in caught.value.errors] == ["one", "two"]
    assert tried == [0, 1, 2]


def test_the_part_of_an_owner_has_a_name() -> None:
    registry = MemoryRegistry()
    assert Below(registry, "acme").name == f"{registry.name}/acme"
