"""Copies to the letter, in memory: order, second tries, what stops whom, what is reported."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import msgspec
import pytest

from fakes.repository import MemoryRepository
from machineos.core.digest import Digest
from machineos.errors import (
    AuthError,
    DigestError,
    MissingError,
    StalledError,
    TransferError,
    UsageError,
)
from machineos.oci.graph.copy import REFERRER_LIMIT, WORKERS, Progress, copy_graph
from machineos.oci.graph.walk import MAX_DEPTH
from machineos.oci.model.documents import (
    EMPTY_DESCRIPTOR,
    INDEX,
    MANIFEST,
    Descriptor,
    Index,
    Manifest,
)
from unit.oci.samples import LAYER, SIGNATURE, put_artifact, put_bytes, put_image, put_index


class Sink(MemoryRepository):
    """Remembers what is stored, in order."""

    def __init__(self) -> None:
        super().__init__("sink")
        self.order: list[str] = []

    def put_blob(self, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        super().put_blob(descriptor, chunks)
        self.order.append(f"blob {descriptor.digest.short}")

    def put_manifest(self, data: bytes, *, media_type: str, tag: str | None = None) -> Descriptor:
        found = super().put_manifest(data, media_type=media_type, tag=tag)
        self.order.append(f"manifest {found.digest.short} {tag}")
        return found


class Source(MemoryRepository):
    """Fails as often as it is told to, at blobs with this content."""

    def __init__(self) -> None:
        super().__init__("source")
        self.failing: dict[bytes, list[Exception]] = {}
        self.opened: list[Digest] = []

    def open_blob(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
        self.opened.append(descriptor.digest)
        whole = super().open_blob(descriptor)
        faults = self.failing.get(self.blobs.get(descriptor.digest, b""), [])
        return _broken(whole, faults.pop(0)) if faults else whole


@contextmanager
def _broken(
    whole: AbstractContextManager[Iterator[bytes]], fault: Exception
) -> Iterator[Iterator[bytes]]:
    """The first half of a blob, then a fault."""
    with whole as chunks:
        data = b"".join(chunks)

    def half() -> Iterator[bytes]:
        yield data[: len(data) // 2]
        yield data[len(data) // 2 : -1]
        raise fault

    yield half()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def sink() -> Sink:
    return Sink()


def short(data: bytes) -> str:
    return Digest.of(data).short


def test_the_constants_are_these() -> None:
    assert (WORKERS, REFERRER_LIMIT) == (4, 64 << 20)


def test_blobs_then_manifests_then_the_tag(source: Source, sink: Sink) -> None:
    root = put_index(source, "1.0", "amd64", "arm64")
    assert copy_graph(source, sink, "1.0", tag="new", workers=1) == root
    kinds = [line.split()[0] for line in sink.order]
    assert kinds == ["blob"] * 3 + ["manifest"] * 3
    assert [line.split()[2] for line in sink.order[3:]] == ["None", "None", "new"]
    assert sink.order[-1] == f"manifest {root.digest.short} new"
    assert sink.tags() == ("new",)


def test_without_a_tag_nothing_is_named(source: Source, sink: Sink) -> None:
    root = put_image(source).root
    assert copy_graph(source, sink, "1.0") == root
    assert sink.tags() == ()
    assert sink.order[-1] == f"manifest {root.digest.short} None"
    assert len([line for line in sink.order if line.startswith("manifest")]) == 1


@pytest.mark.parametrize("tag", [None, "new"])
def test_the_tag_comes_after_the_referrers(source: Source, sink: Sink, tag: str | None) -> None:
    root = put_image(source).root
    signature = put_artifact(source, root, b"signature")
    copy_graph(source, sink, "1.0", tag=tag, referrers=True, workers=1)
    manifests = [line for line in sink.order if line.startswith("manifest")]
    assert manifests == [
        f"manifest {root.digest.short} None",
        f"manifest {signature.digest.short} None",
        *([f"manifest {root.digest.short} new"] if tag else []),
    ]


def test_referrers_of_every_part_and_of_referrers(source: Source, sink: Sink) -> None:
    root = put_index(source, "1.0", "amd64")
    inner = Digest.parse(str(source.manifest("1.0")[1]).split('"digest":"')[1][:71])
    of_image = put_artifact(source, source.resolve(str(inner)), b"of the image")
    of_index = put_artifact(source, root, b"of the index")
    again = put_artifact(source, of_index, b"of the signature", "application/other")
    copy_graph(source, sink, "1.0", referrers=[SIGNATURE])
    for one in (of_image, of_index, again):
        assert sink.has_blob(one.digest)


def test_referrers_of_referrers_end_somewhere(source: Source, sink: Sink) -> None:
    entry = put_image(source).root
    chain = []
    for number in range(MAX_DEPTH + 3):
        entry = put_artifact(source, entry, b"s%d" % number)
        chain.append(entry)
    copy_graph(source, sink, "1.0", referrers=True)
    there = [sink.has_blob(one.digest) for one in chain]
    assert there == [True] * (MAX_DEPTH + 1) + [False] * 2


def test_kinds_of_referrers_are_asked_for_once_and_sorted(source: Source, sink: Sink) -> None:
    asked: list[str] = []

    class Asked(Source):
        def referrers(self, digest: Digest, *, artifact_type: str = "") -> tuple[Descriptor, ...]:
            asked.append(artifact_type)
            return super().referrers(digest, artifact_type=artifact_type)

    other = Asked()
    put_image(other)
    copy_graph(other, sink, "1.0", referrers=["b", "a", "b"])
    assert asked == ["a", "b"]
    asked.clear()
    copy_graph(other, sink, "1.0", referrers=[])
    assert asked == []
    copy_graph(other, sink, "1.0", referrers=True)
    assert asked == [""]


def test_the_largest_blob_is_taken_first(source: Source, sink: Sink) -> None:
    small, large, middle = b"a" * 10, b"b" * 30, b"c" * 20
    put_image(source, "1.0", (small, large, middle))
    started: list[Digest] = []
    gate = threading.Lock()

    class Slow(Sink):
        def has_blob(self, digest: Digest) -> bool:
            with gate:
                started.append(digest)
            return super().has_blob(digest)

    copy_graph(source, Slow(), "1.0", workers=2)
    # Two run at a time, so only the first and the last are sure.
    assert Digest.of(large) in started[:3]
    assert started[-1] == Digest.of(small)
    assert len(started) == 4


@pytest.mark.parametrize("workers", [-1, 0, 1])
def test_one_worker_takes_them_in_the_order_of_the_image(
    source: Source, sink: Sink, workers: int
) -> None:
    put_image(source, "1.0", (b"a", b"bbb", b"cc"))
    copy_graph(source, sink, "1.0", workers=workers)
    blobs = [line for line in sink.order if line.startswith("blob")]
    assert blobs[1:] == [f"blob {short(data)}" for data in (b"a", b"bbb", b"cc")]


def test_a_broken_referrer_does_not_stop_the_next(source: Source, sink: Sink) -> None:
    """Which has one blob, so that no thread is needed for it."""
    root = put_image(source).root
    gone = [Descriptor(media_type=LAYER, digest=Digest.of(b"%d" % n), size=1) for n in range(2)]
    whole = put_bytes(source, b"{}")
    listed = []
    for config, layers in ((gone[0], (gone[1],)), (whole, ())):
        body = Manifest(media_type=MANIFEST, config=config, layers=layers, subject=root)
        listed.append(source.put_manifest(body.to_bytes(), media_type=MANIFEST))

    class Lists(Source):
        def referrers(self, digest: Digest, *, artifact_type: str = "") -> tuple[Descriptor, ...]:
            return tuple(listed) if digest == root.digest else ()

    lists = Lists()
    lists.blobs, lists.types, lists.named = source.blobs, source.types, source.named
    seen: list[Progress] = []
    copy_graph(lists, sink, "1.0", tag="1.0", referrers=True, progress=seen.append)
    assert sink.tags() == ("1.0",)
    assert listed[1].digest in sink.types
    assert [text.partition(":")[2].partition(":")[0] for text in seen[-1].skipped] == [
        listed[0].digest.hex
    ]


@pytest.mark.parametrize(("layers", "alone"), [(0, True), (1, False)])
def test_one_blob_needs_no_other_thread(source: Source, layers: int, alone: bool) -> None:
    threads: set[int] = set()

    class Watched(Sink):
        def has_blob(self, digest: Digest) -> bool:
            threads.add(threading.get_ident())
            return super().has_blob(digest)

    blobs = tuple(put_bytes(source, b"%d" % number) for number in range(layers))
    manifest = Manifest(media_type=MANIFEST, config=put_bytes(source, b"{}"), layers=blobs)
    source.put_manifest(manifest.to_bytes(), media_type=MANIFEST, tag="1.0")
    copy_graph(source, Watched(), "1.0", workers=4)
    assert (threads == {threading.get_ident()}) is alone


# -- what is there already


def test_what_the_sink_has_is_not_read(source: Source, sink: Sink) -> None:
    put_image(source, "1.0", (b"there",))
    sink.blobs[Digest.of(b"there")] = b"there"
    seen: list[Progress] = []
    copy_graph(source, sink, "1.0", workers=1, progress=seen.append)
    assert Digest.of(b"there") not in source.opened
    assert (seen[-1].blobs, seen[-1].bytes) == (2, seen[-1].bytes_total)
    seen.clear()
    copy_graph(source, sink, "1.0", workers=1, progress=seen.append)
    assert [step.current for step in seen[1:3]] == [str(one) for one in source.opened[:1]] + [
        str(Digest.of(b"there"))
    ]
    assert seen[-1].current == ""


def test_what_can_be_mounted_is_not_read(source: Source) -> None:
    class Mounting(Sink):
        def mount_blob(self, descriptor: Descriptor, other: MemoryRepository) -> bool:
            if descriptor.digest != Digest.of(b"near"):
                return False
            self.blobs[descriptor.digest] = other.blobs[descriptor.digest]
            return True

    put_image(source, "1.0", (b"near", b"far"))
    seen: list[Progress] = []
    sink = Mounting()
    copy_graph(source, sink, "1.0", workers=1, progress=seen.append)
    assert Digest.of(b"near") not in source.opened
    assert Digest.of(b"far") in source.opened
    assert (seen[-1].blobs, seen[-1].bytes) == (3, seen[-1].bytes_total)


def test_what_is_inline_is_not_read(source: Source, sink: Sink) -> None:
    image = put_image(source, None)
    manifest = Manifest(media_type=MANIFEST, config=EMPTY_DESCRIPTOR, layers=image.layers)
    source.put_manifest(manifest.to_bytes(), media_type=MANIFEST, tag="1.0")
    seen: list[Progress] = []
    copy_graph(source, sink, "1.0", workers=1, progress=seen.append)
    assert sink.blobs[EMPTY_DESCRIPTOR.digest] == b"{}"
    assert EMPTY_DESCRIPTOR.digest not in source.opened
    assert seen[1] == Progress(1, 2, 2, 7, str(EMPTY_DESCRIPTOR.digest))


# -- failures


def test_a_transfer_that_breaks_is_tried_once_more(source: Source, sink: Sink) -> None:
    put_image(source, "1.0", (b"layer of this image",))
    source.failing[b"layer of this image"] = [TransferError("reset")]
    seen: list[Progress] = []
    copy_graph(source, sink, "1.0", workers=1, progress=seen.append)
    assert sink.blobs[Digest.of(b"layer of this image")] == b"layer of this image"
    assert source.opened.count(Digest.of(b"layer of this image")) == 2
    assert (seen[-1].blobs, seen[-1].bytes) == (2, seen[-1].bytes_total)
    assert all(step.bytes <= step.bytes_total for step in seen)
    source.failing[b"layer of this image"] = [TransferError("reset"), TransferError("again")]
    with pytest.raises(TransferError, match="again"):
        copy_graph(source, Sink(), "1.0", tag="1.0", workers=1)


@pytest.mark.parametrize("fault", [AuthError("no"), StalledError("slow"), MissingError("gone")])
def test_other_faults_are_not_tried_again(source: Source, sink: Sink, fault: Exception) -> None:
    put_image(source, "1.0", (b"layer",))
    source.failing[b"layer"] = [fault]
    with pytest.raises(type(fault)):
        copy_graph(source, sink, "1.0", tag="1.0", workers=1)
    assert source.opened.count(Digest.of(b"layer")) == 1
    assert sink.tags() == ()


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_failure_stops_the_others(source: Source, sink: Sink, workers: int) -> None:
    """And is what is raised: the others only say that they were stopped."""
    layers = (b"x" * 1000, *(b"%d" % number for number in range(40)))
    put_image(source, "1.0", layers)
    source.failing[layers[0]] = [AuthError("no")]
    with pytest.raises(AuthError, match="no"):
        copy_graph(source, sink, "1.0", tag="1.0", workers=workers)
    assert sink.tags() == ()
    assert len(sink.blobs) < len(layers)
    assert threading.active_count() < 5


def test_a_worker_in_the_midst_of_a_blob_hears_of_a_failure(sink: Sink) -> None:
    """The slow one begins when the other fails, which has to reach it between two of its chunks."""
    failed = threading.Event()
    size = 8_000_000  # chunks of one byte: far more than are read until somebody says stop

    class Waits(Source):
        def open_blob(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
            if descriptor.size == size:
                return self._slow()
            if self.blobs[descriptor.digest] == b"bad":
                failed.set()
                raise AuthError("no")
            return super().open_blob(descriptor)

        @contextmanager
        def _slow(self) -> Iterator[Iterator[bytes]]:
            failed.wait()
            yield iter(lambda: b"s", b"")

    waits = Waits()
    layers = (
        Descriptor(media_type=LAYER, digest=Digest.of(b"slow"), size=size),
        put_bytes(waits, b"bad"),
    )
    manifest = Manifest(media_type=MANIFEST, config=put_bytes(waits, b"{}"), layers=layers)
    waits.put_manifest(manifest.to_bytes(), media_type=MANIFEST, tag="1.0")
    with pytest.raises(AuthError, match="no"):
        copy_graph(waits, sink, "1.0", tag="1.0", workers=3)
    assert not sink.has_blob(Digest.of(b"slow"))


def test_a_sink_that_stores_something_else(source: Source) -> None:
    class Changes(Sink):
        def put_manifest(
            self, data: bytes, *, media_type: str, tag: str | None = None
        ) -> Descriptor:
            found = super().put_manifest(data, media_type=media_type, tag=None)
            return msgspec.structs.replace(found, digest=Digest.of(b"other"))

    root = put_image(source).root
    with pytest.raises(DigestError) as caught:
        copy_graph(source, Changes(), "1.0", tag="1.0")
    assert caught.value.message == (f"sink: stored manifest {root.digest} as {Digest.of(b'other')}")


# -- referrers that do not hold together


@pytest.mark.parametrize("kind", ["gone", "huge", "index", "other", "none"])
def test_a_referrer_that_does_not_hold_together_is_skipped(
    source: Source, sink: Sink, kind: str
) -> None:
    root = put_image(source).root
    good = put_artifact(source, root, b"good")
    config = put_bytes(source, b"{}")
    large = Descriptor(media_type=LAYER, digest=Digest.of(b"large"), size=REFERRER_LIMIT - 1)
    bad: dict[str, Any] = {
        "gone": (config, [Descriptor(media_type=LAYER, digest=Digest.of(b"gone"), size=4)], root),
        "huge": (config, [large], root),
        "other": (config, [], source.resolve(str(good.digest))),
        "none": (config, [], None),
    }
    if kind == "index":
        body = Index(media_type=INDEX, manifests=()).to_bytes()
        listed = source.put_manifest(body, media_type=INDEX)
    else:
        entry, layers, subject = bad[kind]
        manifest = Manifest(
            media_type=MANIFEST, config=entry, layers=tuple(layers), subject=subject
        )
        listed = source.put_manifest(manifest.to_bytes(), media_type=MANIFEST)

    class Lists(Source):
        def referrers(self, digest: Digest, *, artifact_type: str = "") -> tuple[Descriptor, ...]:
            return (listed, good) if digest == root.digest else ()

    lists = Lists()
    lists.blobs, lists.types, lists.named = source.blobs, source.types, source.named
    seen: list[Progress] = []
    copy_graph(lists, sink, "1.0", tag="1.0", referrers=True, progress=seen.append)
    assert sink.has_blob(good.digest)
    assert not sink.has_blob(listed.digest)
    (skipped,) = seen[-1].skipped
    reason = {
        "gone": "source: blob",
        "huge": f"source@{listed.digest}: has {REFERRER_LIMIT + 1} bytes, at most 67108864",
    }.get(kind, f"source@{listed.digest}: does not refer to {root.digest}")
    assert skipped.startswith(f"{listed.digest}: {reason}")


def test_a_registry_that_breaks_at_a_referrer_breaks_the_copy(source: Source, sink: Sink) -> None:
    root = put_image(source).root
    put_artifact(source, root, b"signature")
    source.failing[b"signature"] = [TransferError("one"), TransferError("two")]
    with pytest.raises(TransferError, match="two"):
        copy_graph(source, sink, "1.0", tag="1.0", referrers=True)
    assert sink.tags() == ()


# -- progress


def test_progress_begins_with_all_there_is_and_ends_with_nothing_current(
    source: Source, sink: Sink
) -> None:
    image = put_image(source, "1.0", (b"abc",))
    seen: list[Progress] = []
    copy_graph(source, sink, "1.0", workers=1, progress=seen.append)
    total = 3 + len(source.blobs[walk_config(source, image.root)])
    assert seen[0] == Progress(0, 2, 0, total)
    assert seen[-1] == Progress(2, 2, total, total)
    layer = str(Digest.of(b"abc"))
    assert Progress(1, 2, total, total, layer) in seen
    assert seen[-1].current == ""


def walk_config(source: Source, root: Descriptor) -> Digest:
    from machineos.oci.model.documents import parse_manifest

    return parse_manifest(source.blobs[root.digest], name="m").config.digest


def test_platforms_are_picked_before_anything_is_read(source: Source, sink: Sink) -> None:
    put_index(source, "1.0", "amd64", "arm64")
    with pytest.raises(UsageError):
        copy_graph(source, sink, "1.0", platforms=["linux/amd64", "linux/arm64"])
    assert source.opened == []
    copy_graph(source, sink, "1.0", tag="x", platforms=["linux/arm64"])
    assert Digest.of(b"layer for arm64") in source.opened
    assert Digest.of(b"layer for amd64") not in source.opened
