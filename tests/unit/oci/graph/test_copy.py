"""Copies: order, platforms, referrers, failures."""

from __future__ import annotations

import hashlib
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from machineos.core.digest import Digest
from machineos.errors import (
    DigestError,
    DocumentError,
    MachineOSError,
    MissingError,
    UsageError,
)
from machineos.oci.graph.copy import Progress, copy_graph
from machineos.oci.graph.walk import walk
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.documents import (
    EMPTY_DESCRIPTOR,
    INDEX,
    MANIFEST,
    Descriptor,
    Index,
    Manifest,
    parse_index,
)
from unit.oci.samples import LAYER, SIGNATURE, put_artifact, put_bytes, put_image, put_index

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@pytest.fixture
def source(tmp_path: Path) -> LayoutRepository:
    return LayoutRepository(tmp_path / "source", writable=True)


@pytest.fixture
def sink(tmp_path: Path) -> LayoutRepository:
    return LayoutRepository(tmp_path / "sink", writable=True)


class Recorder(LayoutRepository):
    """A layout that remembers the order of writing."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, writable=True)
        self.order: list[str] = []

    def put_blob(self, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        super().put_blob(descriptor, chunks)
        self.order.append(f"blob {descriptor.digest}")

    def put_manifest(self, data: bytes, *, media_type: str, tag: str | None = None) -> Descriptor:
        result = super().put_manifest(data, media_type=media_type, tag=tag)
        self.order.append(f"manifest {result.digest} {tag}")
        return result


def test_children_come_first_and_the_tag_last(source: LayoutRepository, tmp_path: Path) -> None:
    root = put_index(source, "1.0", "amd64", "arm64")
    put_artifact(source, root, b"signature")
    sink = Recorder(tmp_path / "sink")
    copy_graph(source, sink, "1.0", tag="new", referrers=True)
    assert sink.order[-1] == f"manifest {root.digest} new"
    assert [entry for entry in sink.order if entry.endswith(" new")] == sink.order[-1:]
    manifests = [entry.split()[1] for entry in sink.order if entry.startswith("manifest")]
    children = [str(node.descriptor.digest) for node in walk(source, "1.0").nodes[:-1]]
    assert len(children) == 2
    assert all(manifests.index(child) < manifests.index(str(root.digest)) for child in children)
    blobs = [place for place, entry in enumerate(sink.order) if entry.startswith("blob")]
    first = sink.order.index(f"manifest {children[0]} None")
    assert len([place for place in blobs if place < first]) >= 3


def test_a_platform_is_picked(source: LayoutRepository, sink: LayoutRepository) -> None:
    root = put_index(source, "1.0", "amd64", "arm64", "riscv64")
    arm = parse_index(source.manifest("1.0")[1], name="x").manifests[1]
    picked = copy_graph(source, sink, "1.0", tag="arm", platforms=["linux/arm64"])
    assert picked.digest == arm.digest
    assert not sink.has_blob(root.digest)
    two = ["linux/arm64", "linux/amd64"]
    with pytest.raises(UsageError):
        copy_graph(source, sink, "1.0", tag="two", platforms=two)
    fresh = copy_graph(source, sink, "1.0", tag="two", platforms=two, keep_digest=False)
    assert fresh.digest != root.digest
    assert len(parse_index(sink.manifest("two")[1], name="x").manifests) == 2
    with pytest.raises(MissingError, match="s390x"):
        copy_graph(source, sink, "1.0", platforms=["linux/s390x"])
    assert sink.tags() == ("arm", "two")


def test_referrers_of_the_types_asked_for(source: LayoutRepository, sink: LayoutRepository) -> None:
    image = put_image(source)
    signature = put_artifact(source, image.root, b"signature")
    put_artifact(source, image.root, b"bom", "application/spdx+json")
    copy_graph(source, sink, "1.0", tag="1.0", referrers=[SIGNATURE])
    assert [entry.digest for entry in sink.referrers(image.root.digest)] == [signature.digest]


def test_a_broken_referrer_is_skipped_and_named(
    source: LayoutRepository, sink: LayoutRepository
) -> None:
    image = put_image(source)
    good = put_artifact(source, image.root, b"good")
    put_artifact(source, image.root, b"bad")
    source.blob_path(Digest.of(b"bad")).unlink()
    seen: list[Progress] = []
    copy_graph(source, sink, "1.0", tag="1.0", referrers=True, progress=seen.append)
    assert [entry.digest for entry in sink.referrers(image.root.digest)] == [good.digest]
    assert len(seen[-1].skipped) == 1
    assert sink.tags() == ("1.0",)


def test_what_refers_to_something_else_is_skipped(
    source: LayoutRepository, sink: LayoutRepository
) -> None:
    """A list of referrers is the registry's word."""
    image, other = put_image(source), put_image(source, "2.0", (b"other",))
    good = put_artifact(source, image.root, b"good")
    strange = put_artifact(source, other.root, b"strange")

    class Lying(LayoutRepository):
        def referrers(self, digest: Digest, *, artifact_type: str = "") -> tuple[Descriptor, ...]:
            found = super().referrers(digest, artifact_type=artifact_type)
            return (*found, strange) if digest == image.root.digest else found

    seen: list[Progress] = []
    lying = Lying(source.path)
    copy_graph(lying, sink, "1.0", tag="1.0", referrers=True, progress=seen.append)
    assert [entry.digest for entry in sink.referrers(image.root.digest)] == [good.digest]
    assert not sink.has_blob(strange.digest)
    assert "does not refer to" in seen[-1].skipped[0]


def test_a_huge_referrer_is_skipped(source: LayoutRepository, sink: LayoutRepository) -> None:
    """A signature of 10 GB, or one that says so."""
    image = put_image(source)
    source.put_blob(EMPTY_DESCRIPTOR, (b"{}",))
    huge = Descriptor(media_type=SIGNATURE, digest=Digest.of(b"huge"), size=10 << 30)
    body = Manifest(
        media_type=MANIFEST, config=EMPTY_DESCRIPTOR, layers=(huge,), subject=image.root
    ).to_bytes()
    source.put_manifest(body, media_type=MANIFEST)
    seen: list[Progress] = []
    copy_graph(source, sink, "1.0", tag="1.0", referrers=True, progress=seen.append)
    assert "at most" in seen[-1].skipped[0]
    assert sink.referrers(image.root.digest) == ()


def test_progress_adds_up(source: LayoutRepository, sink: LayoutRepository) -> None:
    put_image(source, "1.0", (b"a" * 3_000_000, b"b" * 10))
    seen: list[Progress] = []
    copy_graph(source, sink, "1.0", tag="1.0", progress=seen.append)
    last = seen[-1]
    assert (last.blobs, last.bytes) == (last.blobs_total, last.bytes_total)
    assert last.blobs_total == 3
    assert [step.bytes for step in seen] == sorted(step.bytes for step in seen)


@pytest.mark.parametrize("workers", [1, 4])
def test_a_bad_layer_stops_the_copy_without_a_tag(
    source: LayoutRepository, sink: LayoutRepository, workers: int
) -> None:
    image = put_image(source, "1.0", tuple(b"layer %d" % number for number in range(20)))
    path = source.blob_path(image.layers[7].digest)
    path.write_bytes(b"Layer 7")
    with pytest.raises(DigestError, match=str(image.layers[7].digest)):
        copy_graph(source, sink, "1.0", tag="1.0", workers=workers)
    assert sink.tags() == ()
    assert not sink.has_blob(image.layers[7].digest)
    assert not list(sink.path.rglob(".*"))


def test_what_reports_progress_can_stop_the_copy(
    source: LayoutRepository, sink: LayoutRepository
) -> None:
    put_image(source, "1.0", (b"x" * 5_000_000, b"y" * 5_000_000))

    def report(progress: Progress) -> None:
        if progress.bytes > 1_000_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_graph(source, sink, "1.0", tag="1.0", progress=report)
    assert sink.tags() == ()
    assert not list(sink.path.rglob(".*"))


def test_one_blob_with_two_sizes_is_refused(
    source: LayoutRepository, sink: LayoutRepository
) -> None:
    blob = put_bytes(source, b"data")
    other = Descriptor(media_type=LAYER, digest=blob.digest, size=5)
    body = Manifest(media_type=MANIFEST, config=blob, layers=(other,)).to_bytes()
    source.put_manifest(body, media_type=MANIFEST, tag="1.0")
    with pytest.raises(DigestError, match="two sizes"):
        copy_graph(source, sink, "1.0", tag="1.0")


def test_an_index_that_lies_about_its_manifests(
    source: LayoutRepository, sink: LayoutRepository
) -> None:
    image = put_image(source, None)
    for kind, size in ((MANIFEST, image.root.size + 1), (INDEX, image.root.size), (LAYER, 1)):
        entry = Descriptor(media_type=kind, digest=image.root.digest, size=size)
        body = Index(media_type=INDEX, manifests=(entry,)).to_bytes()
        source.put_manifest(body, media_type=INDEX, tag="1.0")
        with pytest.raises(MachineOSError):
            copy_graph(source, sink, "1.0", tag="1.0")
    assert sink.tags() == ()


def test_deep_indexes_are_refused(source: LayoutRepository) -> None:
    entry = put_image(source, None).root
    for _ in range(8):
        body = Index(media_type=INDEX, manifests=(entry,)).to_bytes()
        entry = source.put_manifest(body, media_type=INDEX, tag="1.0")
    with pytest.raises(DocumentError, match="too deep"):
        walk(source, "1.0")


def test_memory_does_not_grow_with_the_blob(
    source: LayoutRepository, sink: LayoutRepository
) -> None:
    chunk = bytes(1 << 20)
    layers = []
    for number in range(2):
        parts = [bytes([number]), *([chunk] * 48)]
        digest = hashlib.sha256(b"".join(parts)).hexdigest()
        layer = Descriptor(
            media_type=LAYER, digest=Digest("sha256", digest), size=sum(map(len, parts))
        )
        source.put_blob(layer, parts)
        layers.append(layer)
    body = Manifest(media_type=MANIFEST, config=layers[0], layers=tuple(layers)).to_bytes()
    source.put_manifest(body, media_type=MANIFEST, tag="1.0")
    tracemalloc.start()
    try:
        copy_graph(source, sink, "1.0", tag="1.0")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 << 20


def test_a_blob_that_is_not_held_is_copied_although_its_name_is_there(
    source: LayoutRepository, tmp_path: Path
) -> None:
    image = put_image(source, "1.0", (b"one", b"two"))
    copy_graph(source, LayoutRepository(tmp_path / "sink", writable=True), "1.0", tag="1.0")
    cut = LayoutRepository(tmp_path / "sink").blob_path(image.layers[0].digest)
    cut.write_bytes(b"on")
    flipped = LayoutRepository(tmp_path / "sink").blob_path(image.layers[1].digest)
    flipped.write_bytes(b"TWO")
    copy_graph(source, LayoutRepository(tmp_path / "sink", writable=True), "1.0", tag="1.0")
    assert (cut.read_bytes(), flipped.read_bytes()) == (b"one", b"TWO")
    checked = LayoutRepository(
        tmp_path / "sink",
        writable=True,
        check=lambda path, blob: Digest.of(path.read_bytes()) == blob.digest,
    )
    copy_graph(source, checked, "1.0", tag="1.0")
    assert (cut.read_bytes(), flipped.read_bytes()) == (b"one", b"two")
