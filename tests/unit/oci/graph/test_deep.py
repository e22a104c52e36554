"""The deep check finds each kind of damage, says each once, and nothing of what is whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager

import msgspec
import pytest

from fakes.repository import MemoryRepository
from machineos.core.digest import Digest
from machineos.errors import TransferError
from machineos.oci.graph.deep import Damage, check
from machineos.oci.graph.walk import MAX_DEPTH, MAX_MANIFESTS
from machineos.oci.model.documents import INDEX, MANIFEST, Descriptor, Index, Manifest
from unit.oci.samples import LAYER, put_artifact, put_bytes, put_image, put_index


@pytest.fixture
def source() -> MemoryRepository:
    return MemoryRepository("source")


def put_list(source: MemoryRepository, *entries: Descriptor, tag: str = "1.0") -> Descriptor:
    index = Index(media_type=INDEX, manifests=entries)
    return source.put_manifest(index.to_bytes(), media_type=INDEX, tag=tag)


def objects(damage: tuple[Damage, ...]) -> list[str]:
    return [one.object for one in damage]


def test_what_is_whole_has_no_damage(source: MemoryRepository) -> None:
    root = put_index(source, "multi", "amd64", "arm64")
    put_artifact(source, root, b"signature")
    put_image(source, "1.0")
    assert check(source) == ()
    # And all of it was read, each once.
    assert set(source.asked) == set(source.blobs)
    assert len([one for one in source.asked if one not in source.types]) == len(
        set(source.asked) - set(source.types)
    )


def test_who_looks_sees_each_blob_and_takes_nothing_away(source: MemoryRepository) -> None:
    put_image(source, "1.0")
    seen: dict[Digest, bytes] = {}

    def look(blob: Descriptor, chunks: Iterator[bytes]) -> None:
        seen[blob.digest] = next(chunks)

    assert check(source, look=look) == ()
    assert seen == {one: data for one, data in source.blobs.items() if one not in source.types}
    # What is damaged is found behind what was looked at.
    digest = next(iter(seen))
    source.blobs[digest] = source.blobs[digest][:-1] + b"?"
    assert objects(check(source, look=look)) == [str(digest)]


def test_what_is_named_twice_is_read_once(source: MemoryRepository) -> None:
    image = put_image(source, None).root
    put_list(source, image, image)
    assert check(source) == ()
    blobs = [one for one in source.asked if one not in source.types]
    assert len(blobs) == len(set(blobs))
    del source.blobs[image.digest]
    assert objects(check(source)) == [str(image.digest)]


def test_every_changed_byte_and_every_missing_blob_is_found(source: MemoryRepository) -> None:
    root = put_index(source, "multi", "amd64", "arm64")
    for digest, data in list(source.blobs.items()):
        found = "multi" if digest == root.digest else str(digest)
        source.blobs[digest] = data[:-1] + bytes([data[-1] ^ 1])
        assert objects(check(source)) == [found]
        del source.blobs[digest]
        assert objects(check(source)) == [found]
        source.blobs[digest] = data
    assert check(source) == ()


def test_damage_says_where_it_was_found_and_what_it_is(source: MemoryRepository) -> None:
    image = put_image(source, "1.0", (b"one", b"two"))
    layer = image.layers[1]
    del source.blobs[layer.digest]
    message = f"source: blob {layer.digest} is not there"
    (damage,) = check(source)
    assert damage == Damage("1.0", str(layer.digest), message)
    assert str(damage) == f"{layer.digest}: {message}"


def test_a_name_that_leads_nowhere(source: MemoryRepository) -> None:
    put_image(source, "1.0")
    assert check(source, ["2.0", "1.0"]) == (Damage("2.0", "2.0", "source: no tag 2.0"),)


def test_only_what_is_asked_for_is_read(source: MemoryRepository) -> None:
    image, other = put_image(source, "1.0"), put_image(source, "2.0", (b"other",))
    del source.blobs[other.layers[0].digest]
    assert check(source, [str(image.root.digest)]) == ()
    assert objects(check(source)) == [str(other.layers[0].digest)]
    assert [one.root for one in check(source)] == ["2.0"]


def test_a_blob_that_two_images_share_is_read_and_told_of_once(source: MemoryRepository) -> None:
    put_image(source, "1.0")
    put_image(source, "2.0", (b"layer", b"more"))
    shared = Digest.of(b"layer")
    check(source)
    assert source.asked.count(shared) == 1
    source.blobs[shared] = b"Layer"
    assert [(one.root, one.object) for one in check(source)] == [("1.0", str(shared))]


def test_referrers_are_looked_at_unless_they_are_not_asked_for(source: MemoryRepository) -> None:
    image = put_image(source, "1.0")
    put_artifact(source, image.root, b"signature")
    signature = Digest.of(b"signature")
    source.blobs[signature] = b"Signature"
    assert objects(check(source)) == [str(signature)]
    assert check(source, referrers=False) == ()


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_manifest_of_another_size(source: MemoryRepository, difference: int) -> None:
    image = put_image(source, None)
    size = image.root.size
    put_list(source, msgspec.structs.replace(image.root, size=size + difference))
    (damage,) = check(source)
    assert damage.object == str(image.root.digest)
    assert damage.message == f"has {size} bytes, expected {size + difference}"


def test_a_manifest_of_another_type(source: MemoryRepository) -> None:
    image = put_image(source, None)
    put_list(source, msgspec.structs.replace(image.root, media_type=INDEX))
    (damage,) = check(source)
    assert damage.object == str(image.root.digest)
    assert f"source@{image.root.digest}" in damage.message
    assert "served as" in damage.message


def test_one_object_with_two_sizes(source: MemoryRepository) -> None:
    blob = put_bytes(source, b"data")
    config = put_bytes(source, b"{}")
    other = Descriptor(media_type=LAYER, digest=blob.digest, size=5)
    for layers in ((blob, other), (blob, blob)):
        manifest = Manifest(media_type=MANIFEST, config=config, layers=layers)
        tag = "bad" if other in layers else "good"
        source.put_manifest(manifest.to_bytes(), media_type=MANIFEST, tag=tag)
    assert check(source, ["good"]) == ()
    assert check(source, ["bad"]) == (
        Damage("bad", str(blob.digest), "is given two sizes, 4 and 5"),
    )


TOO_MANY = "is one of too many manifests, or too deep"


@pytest.mark.parametrize("levels", [MAX_DEPTH, MAX_DEPTH + 1])
def test_how_deep_indexes_may_be(source: MemoryRepository, levels: int) -> None:
    entry = first = put_image(source, None).root
    for _ in range(levels):
        entry = put_list(source, entry)
    found = check(source)
    assert found == (() if levels == MAX_DEPTH else (Damage("1.0", str(first.digest), TOO_MANY),))


@pytest.mark.parametrize("levels", [MAX_DEPTH, MAX_DEPTH + 1])
def test_how_deep_referrers_may_be(source: MemoryRepository, levels: int) -> None:
    entry = put_image(source, "1.0").root
    for number in range(levels):
        entry = put_artifact(source, entry, b"s%d" % number)
    found = check(source)
    assert found == (() if levels == MAX_DEPTH else (Damage("1.0", str(entry.digest), TOO_MANY),))


@pytest.mark.parametrize("count", [MAX_MANIFESTS - 1, MAX_MANIFESTS])
def test_how_many_manifests_there_may_be(source: MemoryRepository, count: int) -> None:
    config = put_bytes(source, b"{}")
    entries = []
    for number in range(count):
        notes = {"n": str(number)}
        manifest = Manifest(media_type=MANIFEST, config=config, layers=(), annotations=notes)
        entries.append(source.put_manifest(manifest.to_bytes(), media_type=MANIFEST))
    put_list(source, *entries)
    found = check(source, referrers=False)
    last = Damage("1.0", str(entries[-1].digest), TOO_MANY)
    assert found == (() if count < MAX_MANIFESTS else (last,))


class Unreachable(MemoryRepository):
    """A repository that breaks at one kind of request."""

    at = ""

    def resolve(self, reference: str) -> Descriptor:
        if self.at == "resolve":
            raise TransferError("unreachable")
        return super().resolve(reference)

    def manifest(self, reference: str) -> tuple[Descriptor, bytes]:
        if self.at == "manifest" and ":" in reference:
            raise TransferError("unreachable")
        return super().manifest(reference)

    def open_blob(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
        if self.at == "blob":
            raise TransferError("unreachable")
        return super().open_blob(descriptor)

    def tags(self) -> tuple[str, ...]:
        if self.at == "tags":
            raise TransferError("unreachable")
        return super().tags()


@pytest.mark.parametrize("at", ["resolve", "manifest", "blob", "tags"])
def test_a_registry_that_cannot_be_reached_is_no_damage(at: str) -> None:
    source = Unreachable()
    put_image(source, "1.0")
    assert check(source) == ()
    source.at = at
    with pytest.raises(TransferError, match="unreachable"):
        check(source)
