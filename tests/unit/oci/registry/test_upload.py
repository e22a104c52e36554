"""Pushing: pieces, breaks, mounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fakes.registry import FakeRegistry
from machineos.errors import (
    TransferError,
)
from machineos.oci.graph.copy import copy_graph
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.documents import (
    EMPTY_DESCRIPTOR,
    MANIFEST,
    Manifest,
)
from machineos.oci.registry.client import HttpRegistry
from unit.oci.samples import DATA, put_bytes, put_image

if TYPE_CHECKING:
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
