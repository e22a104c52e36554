"""What an image consists of: in which order, by which bounds, and the part for a platform."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from fakes.repository import MemoryRepository
from machineos.core.digest import Digest
from machineos.errors import DigestError, DocumentError, MissingError, UsageError
from machineos.oci.graph.platform import platform_name
from machineos.oci.graph.walk import (
    MAX_BLOBS,
    MAX_DEPTH,
    MAX_HELD,
    MAX_MANIFESTS,
    Graph,
    children,
    refusal,
    select,
    walk,
)
from machineos.oci.model.documents import (
    INDEX,
    MANIFEST,
    MAX_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    parse_document,
    parse_index,
)
from unit.oci.samples import LAYER, put_image, put_index


@pytest.fixture
def source() -> MemoryRepository:
    return MemoryRepository("source")


def blob(name: str, size: int = 1) -> Descriptor:
    return Descriptor(media_type=LAYER, digest=Digest.of(name.encode()), size=size)


def put_manifest(
    source: MemoryRepository,
    *layers: Descriptor,
    tag: str | None = None,
    annotations: dict[str, str] | None = None,
) -> Descriptor:
    manifest = Manifest(
        media_type=MANIFEST, config=blob("config"), layers=layers, annotations=annotations or {}
    )
    return source.put_manifest(manifest.to_bytes(), media_type=MANIFEST, tag=tag)


def put_list(source: MemoryRepository, *entries: Descriptor, tag: str = "1.0") -> Descriptor:
    index = Index(media_type=INDEX, manifests=entries)
    return source.put_manifest(index.to_bytes(), media_type=INDEX, tag=tag)


def digests(graph: Graph) -> list[Digest]:
    return [node.descriptor.digest for node in graph.nodes]


def test_the_bounds_are_these() -> None:
    assert (MAX_DEPTH, MAX_MANIFESTS, MAX_BLOBS, MAX_HELD) == (4, 2000, 20_000, 16 << 20)


def test_a_manifest_and_its_blobs(source: MemoryRepository) -> None:
    root = put_manifest(source, blob("a", 2), blob("b", 3), tag="1.0")
    graph = walk(source, "1.0")
    assert digests(graph) == [root.digest]
    assert graph.root.descriptor == root
    assert graph.root.data == source.blobs[root.digest]
    assert graph.blobs == (blob("config"), blob("a", 2), blob("b", 3))
    assert graph.size == 6
    assert source.asked == [root.digest]


def test_children_come_before_what_names_them_and_each_once(source: MemoryRepository) -> None:
    one, two = put_manifest(source, blob("a")), put_manifest(source, blob("b"), blob("a"))
    inner = put_list(source, one, two, tag="inner")
    root = put_list(source, one, inner, two)
    graph = walk(source, "1.0")
    assert digests(graph) == [one.digest, two.digest, inner.digest, root.digest]
    assert graph.blobs == (blob("config"), blob("a"), blob("b"))
    assert source.asked.count(one.digest) == 1


def test_a_bound_on_the_bytes_of_blobs(source: MemoryRepository) -> None:
    root = put_manifest(source, blob("a", 9), tag="1.0")
    assert walk(source, "1.0", limit=10).size == 10
    with pytest.raises(DocumentError) as caught:
        walk(source, "1.0", limit=9)
    assert caught.value.message == f"source@{root.digest}: has 10 bytes, at most 9 allowed"


@pytest.mark.parametrize("levels", [MAX_DEPTH, MAX_DEPTH + 1])
def test_how_deep_indexes_may_be(source: MemoryRepository, levels: int) -> None:
    entry = put_manifest(source)
    for _ in range(levels):
        entry = put_list(source, entry)
    if levels <= MAX_DEPTH:
        assert len(walk(source, "1.0").nodes) == levels + 1
        return
    with pytest.raises(DocumentError, match="names too many manifests or too deep"):
        walk(source, "1.0")


@pytest.mark.parametrize("count", [MAX_MANIFESTS, MAX_MANIFESTS + 1])
def test_how_many_manifests_an_index_may_name(source: MemoryRepository, count: int) -> None:
    put_list(
        source, *(put_manifest(source, annotations={"n": str(number)}) for number in range(count))
    )
    if count == MAX_MANIFESTS:
        assert len(walk(source, "1.0").nodes) == count + 1
        return
    with pytest.raises(DocumentError, match="names too many manifests or too deep"):
        walk(source, "1.0")


def test_how_many_bytes_of_manifests_are_held(source: MemoryRepository) -> None:
    def large(number: int, size: int) -> Descriptor:
        empty = len(put_manifest_bytes({"n": str(number), "x": ""}))
        return put_manifest(source, annotations={"n": str(number), "x": "y" * (size - empty)})

    quarter = MAX_HELD // 4
    entries = [large(number, quarter) for number in range(4)]
    index = Index(media_type=INDEX, manifests=tuple(entries)).to_bytes()
    source.put_manifest(index, media_type=INDEX, tag="1.0")
    with pytest.raises(DocumentError, match="names too many manifests or too deep"):
        walk(source, "1.0")
    entries[3] = large(4, quarter - len(index))
    put_list(source, *entries)
    assert sum(len(node.data) for node in walk(source, "1.0").nodes) == MAX_HELD


def put_manifest_bytes(notes: dict[str, str]) -> bytes:
    manifest = Manifest(media_type=MANIFEST, config=blob("config"), layers=(), annotations=notes)
    return manifest.to_bytes()


def test_how_many_blobs_there_may_be(source: MemoryRepository) -> None:
    many = [blob(str(number)) for number in range(MAX_BLOBS)]
    half = MAX_BLOBS // 2
    one = put_manifest(source, *many[: half - 1])  # the configuration is one more
    two = put_manifest(source, *many[half:])
    put_list(source, one, two)
    assert len(walk(source, "1.0").blobs) == MAX_BLOBS
    put_list(source, one, two, put_manifest(source, blob("more")))
    with pytest.raises(DocumentError) as caught:
        walk(source, "1.0")
    assert caught.value.message == (
        f"source@{blob('more').digest}: is one of over {MAX_BLOBS} blobs"
    )


def test_a_blob_has_one_size(source: MemoryRepository) -> None:
    put_manifest(source, blob("a", 1), blob("a", 2), tag="1.0")
    with pytest.raises(DigestError) as caught:
        walk(source, "1.0")
    assert caught.value.message == (f"source: blob {blob('a').digest} is given two sizes, 1 and 2")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"media_type": LAYER}, DocumentError, f"has the unknown type '{LAYER}'"),
        ({"media_type": ""}, DocumentError, "has the unknown type ''"),
        ({"size": MAX_MANIFEST + 1}, DocumentError, f"is larger than {MAX_MANIFEST} bytes"),
        ({"size": MAX_MANIFEST}, DigestError, f"expected {MAX_MANIFEST} bytes"),
        ({"size": 1}, DigestError, f"expected 1 bytes of {MANIFEST}"),
        ({"media_type": INDEX}, DigestError, f"bytes of {MANIFEST}, expected "),
        ({"digest": Digest.of(b"no")}, MissingError, "no manifest"),
    ],
)
def test_an_index_that_lies_about_a_manifest(
    source: MemoryRepository, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    entry = put_manifest(source)
    put_list(source, msgspec.structs.replace(entry, **change))
    with pytest.raises(error, match=re.escape(message)):
        walk(source, "1.0")


def test_what_is_no_document_is_refused(source: MemoryRepository) -> None:
    entry = put_manifest(source, tag="1.0")

    class Garbles(MemoryRepository):
        def manifest(self, reference: str) -> tuple[Descriptor, bytes]:
            return source.manifest(reference)[0], b"{}"

    with pytest.raises(DocumentError, match=f"garbled@{entry.digest}"):
        walk(Garbles("garbled"), "1.0")


def test_children_are_what_a_document_names(source: MemoryRepository) -> None:
    one = put_manifest(source, blob("a"))
    put_list(source, one)
    manifest = parse_document(source.manifest(str(one.digest))[1], name="m")
    assert children(manifest) == (blob("config"), blob("a"))
    index = parse_document(source.manifest("1.0")[1], name="i")
    assert children(index) == (one,)


# -- platforms


@pytest.mark.parametrize(
    ("platform", "name"),
    [
        (None, "unknown"),
        ({}, "unknown"),
        ({"os": "linux"}, "linux"),
        ({"os": "linux", "architecture": "arm", "variant": "v7"}, "linux/arm/v7"),
        ({"os": "linux", "architecture": "arm64", "variant": ""}, "linux/arm64"),
        ({"architecture": 7}, "7"),
    ],
)
def test_names_of_platforms(platform: dict[str, Any] | None, name: str) -> None:
    assert platform_name(msgspec.structs.replace(blob("x"), platform=platform)) == name


def test_all_of_it_when_no_platform_is_named(source: MemoryRepository) -> None:
    put_index(source, "1.0", "amd64", "arm64")
    graph = walk(source, "1.0")
    assert select(graph, [], "it") is graph
    put_image(source, "single")
    single = walk(source, "single")
    assert select(single, ["linux/s390x"], "it") is single


def test_one_platform_is_its_manifest(source: MemoryRepository) -> None:
    put_index(source, "1.0", "amd64", "arm64")
    index = parse_index(source.manifest("1.0")[1], name="x")
    for keep_digest in (True, False):
        part = select(walk(source, "1.0"), ["linux/arm64"], "it", keep_digest=keep_digest)
        assert index.manifests[1].digest in digests(part)
        assert index.manifests[0].digest not in digests(part)
        assert [one.digest for one in part.blobs] == [
            one.digest for one in walk(source, str(index.manifests[1].digest)).blobs
        ]
        assert len(part.nodes) == (1 if keep_digest else 2)


def test_a_platform_can_be_an_index_itself(source: MemoryRepository) -> None:
    one, two = put_manifest(source, blob("a")), put_manifest(source, blob("b"))
    inner = put_list(source, one, two, tag="inner")
    arm = msgspec.structs.replace(inner, platform={"os": "linux", "architecture": "arm64"})
    amd = msgspec.structs.replace(
        put_manifest(source, blob("c")), platform={"os": "linux", "architecture": "amd64"}
    )
    put_list(source, amd, arm)
    part = select(walk(source, "1.0"), ["linux/arm64"], "it")
    assert digests(part) == [one.digest, two.digest, inner.digest]
    assert part.blobs == (blob("config"), blob("a"), blob("b"))


def test_several_platforms_are_a_new_index(source: MemoryRepository) -> None:
    put_index(source, "1.0", "amd64", "arm64", "riscv64")
    graph = walk(source, "1.0")
    whole = parse_index(graph.root.data, name="x")
    wanted = ["linux/riscv64", "linux/amd64"]
    with pytest.raises(UsageError) as refused:
        select(graph, wanted, "it")
    assert refused.value.message == (
        "it: several platforms of an index cannot be copied under its digest"
    )
    assert refused.value.hint == "copy all platforms, or one, or allow a new digest"
    part = select(graph, wanted, "it", keep_digest=False)
    made = parse_index(part.root.data, name="x", media_type=INDEX)
    assert made.manifests == (whole.manifests[0], whole.manifests[2])
    assert made.annotations == whole.annotations
    assert part.root.descriptor == Descriptor(
        media_type=INDEX, digest=Digest.of(part.root.data), size=len(part.root.data)
    )
    assert digests(part)[:-1] == [one.digest for one in made.manifests]


def test_a_platform_that_is_not_there_is_named(source: MemoryRepository) -> None:
    put_index(source, "1.0", "arm64", "amd64")
    with pytest.raises(MissingError) as caught:
        select(walk(source, "1.0"), ["linux/s390x", "linux/amd64", "linux/mips"], "it")
    assert caught.value.message == "it: no platform linux/mips, linux/s390x"
    assert caught.value.hint == "has linux/amd64, linux/arm64"


def test_a_refusal_names_the_object(source: MemoryRepository) -> None:
    error = refusal(source, Digest.of(b"x"), "is bad")
    assert isinstance(error, DocumentError)
    assert error.message == f"source@{Digest.of(b'x')}: is bad"
