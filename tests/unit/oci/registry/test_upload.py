"""Pushing: pieces, breaks, mounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from changed import replace
from fakes.habits import habits
from fakes.registry import FakeRegistry
from machineos.core.digest import Digest
from machineos.errors import StalledError, TransferError
from machineos.oci.graph.copy import copy_graph
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.documents import (
    EMPTY_DESCRIPTOR,
    MANIFEST,
    Manifest,
)
from machineos.oci.registry.client import HttpRegistry
from unit.oci.conftest import FAST
from unit.oci.samples import DATA, NoWaiting, descriptor, put_bytes, put_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def test_a_small_blob_is_one_upload(fake: FakeRegistry, client: HttpRegistry) -> None:
    put_bytes(client.repository("a/b"), b"small")
    assert [item.method for item in fake.seen] == ["HEAD", "POST", "PUT"]


def test_a_broken_push_goes_on_where_it_broke(fake: FakeRegistry, client: HttpRegistry) -> None:
    fake.faults.upload_dies_after = 20_000
    blob = put_bytes(client.repository("a/b"), DATA)
    assert fake.blobs[("a/b", str(blob.digest))] == DATA
    patches = [item for item in fake.seen if item.method == "PATCH"]
    assert patches[1].headers["Content-Range"].startswith("20000-")


def test_a_lost_upload_starts_again(
    fake: FakeRegistry, client: HttpRegistry, tmp_path: Path
) -> None:
    source = LayoutRepository(tmp_path / "source", writable=True)
    image = put_image(source, "1.0", (DATA,))
    fake.faults.upload_dies_after, fake.faults.loses_uploads = 20_000, True
    assert copy_graph(source, client.repository("a/b"), "1.0", tag="1.0") == image.root
    assert fake.blobs[("a/b", str(image.layers[0].digest))] == DATA


def chunks_of(data: bytes, size: int = 10_000) -> Iterator[bytes]:
    yield from (data[start : start + size] for start in range(0, len(data), size))


def test_a_large_blob_is_one_request(fake: FakeRegistry, client: HttpRegistry) -> None:
    client.repository("a/b").put_blob(descriptor(DATA), chunks_of(DATA))
    assert [item.method for item in fake.seen] == ["HEAD", "POST", "PATCH", "PUT"]
    sent = fake.seen[2].headers
    assert sent["Content-Length"] == str(len(DATA))
    assert "Content-Range" not in sent


def test_what_was_sent_too_long_ago_is_not_there_any_more(
    fake: FakeRegistry, clock: NoWaiting, tmp_path: Path
) -> None:
    """Then the blob starts again, from its source."""
    source = LayoutRepository(tmp_path / "source", writable=True)
    image = put_image(source, "1.0", (DATA,))
    with HttpRegistry(fake.host, limits=replace(FAST, kept=1000), clock=clock) as client:
        fake.faults.upload_dies_after = 20_000
        with pytest.raises(TransferError, match="the registry lost the upload"):
            client.repository("a/b").put_blob(descriptor(DATA), chunks_of(DATA))
        fake.faults.upload_dies_after = 20_000
        copy_graph(source, client.repository("a/b"), "1.0", tag="1.0")
    assert fake.blobs[("a/b", str(image.layers[0].digest))] == DATA


@pytest.mark.parametrize("error", [StalledError("the source"), TransferError("the source")])
def test_a_source_that_breaks_is_no_fault_of_the_registry(
    fake: FakeRegistry, client: HttpRegistry, error: TransferError
) -> None:
    def breaking() -> Iterator[bytes]:
        yield DATA[:100_000]
        raise error

    with pytest.raises(TransferError, match=r"^the source$"):
        client.repository("a/b").put_blob(descriptor(DATA), breaking())
    assert [item.method for item in fake.seen][-1] in {"POST", "PATCH"}
    assert not fake.blobs


def test_what_is_refused_in_one_request_goes_in_pieces(
    fake: FakeRegistry, client: HttpRegistry
) -> None:
    """From then on at once."""
    habits()["least_pieces"].keep(fake)
    repository = client.repository("a/b")
    for data in (DATA, DATA[::-1]):
        repository.put_blob(descriptor(data), chunks_of(data))
        assert fake.blobs[("a/b", str(Digest.of(data)))] == data
    patches = [item.headers for item in fake.seen if item.method == "PATCH"]
    whole = [sent for sent in patches if "Content-Range" not in sent]
    assert len(whole) == 1
    sizes = {int(sent["Content-Length"]) for sent in patches if sent not in whole}
    assert min(sizes - {len(DATA) % 100_000}) >= 100_000


def test_a_registry_that_takes_only_huge_pieces(fake: FakeRegistry, client: HttpRegistry) -> None:
    habits()["least_pieces"].keep(fake)
    fake.faults.says_at_start = {"OCI-Chunk-Min-Length": str(1 << 40)}
    with pytest.raises(TransferError, match="takes no piece below 1099511627776 bytes"):
        client.repository("a/b").put_blob(descriptor(DATA), chunks_of(DATA))


@pytest.mark.parametrize("status", [200, 202, 301, 400, 500])
def test_any_other_answer_than_created_is_an_error(
    fake: FakeRegistry, client: HttpRegistry, status: int
) -> None:
    repository = client.repository("a/b")
    put_bytes(repository, b"{}")
    body = Manifest(media_type=MANIFEST, config=EMPTY_DESCRIPTOR, layers=()).to_bytes()
    fake.faults.put_status = status
    with pytest.raises(TransferError):
        put_bytes(repository, b"data")
    with pytest.raises(TransferError):
        repository.put_manifest(body, media_type=MANIFEST, tag="1.0")
    assert not fake.tags


def test_blobs_are_mounted_from_the_same_registry(fake: FakeRegistry, client: HttpRegistry) -> None:
    source, sink = client.repository("a/b"), client.repository("c/d")
    image = put_image(source, "1.0", (DATA,))
    before = len(fake.seen)
    assert copy_graph(source, sink, "1.0", tag="1.0") == image.root
    after = fake.seen[before:]
    assert sum(1 for item in after if "mount=" in item.path) == 2
    assert not [
        item
        for item in after
        if item.method == "PATCH" or ("/c/d/blobs/uploads/" in item.path and item.method == "PUT")
    ]
