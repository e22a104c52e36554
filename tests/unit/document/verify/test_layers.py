"""Layers in a repository: judged by their heads, and no more of them is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import cast

import pytest

from fakes.layers import head_of, layer_content, tree_of
from machineos.core.digest import Digest
from machineos.document.verify.layers import _Stream, require_mountable
from machineos.errors import DigestError, VerificationError
from machineos.host.kernel.superblock import BLOCK
from machineos.oci.model.atomfs import layer_media_type
from machineos.oci.model.documents import CONFIG, MANIFEST, Descriptor, Manifest
from machineos.oci.model.repository import Repository

CHUNK = 5000  # no chunk ends where a block does


class Streams:
    """A repository that counts what is read of its blobs, and whether they were closed."""

    def __init__(self, *contents: bytes) -> None:
        self.blobs = {Digest.of(content): content for content in contents}
        self.read = 0
        self.closed = 0

    @contextmanager
    def open_blob(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        """Yield the chunks; their digest is not looked at."""

        def chunks() -> Iterator[bytes]:
            data = self.blobs[descriptor.digest]
            for start in range(0, len(data), CHUNK):
                self.read += 1
                yield data[start : start + CHUNK]

        try:
            yield chunks()
        finally:
            self.closed += 1


def manifest(*contents: bytes) -> Manifest:
    media_type = layer_media_type("squashfs", "zstd")
    layers = tuple(
        Descriptor(media_type=media_type, digest=Digest.of(content), size=len(content))
        for content in contents
    )
    config = Descriptor(media_type=CONFIG, digest=Digest.of(b"c"), size=1)
    return Manifest(media_type=MANIFEST, config=config, layers=layers)


def look(*contents: bytes, tree: bool) -> Streams:
    repository = Streams(*contents)
    try:
        require_mountable(
            cast("Repository", repository), manifest(*contents), "image of zot", tree=tree
        )
    finally:
        assert repository.closed
    return repository


BIG = layer_content(b"x" * 40_000)
BAD_TREE = head_of(10).ljust(10 * BLOCK, b"\0") + tree_of(9)


def test_of_a_layer_only_the_head_is_read() -> None:
    assert look(BIG, tree=False).read == 1
    assert look(BAD_TREE, tree=False).read == 1


def test_the_head_of_the_tree_is_read_where_it_is_asked_for() -> None:
    """The file system of BIG has 11 blocks, and the twelfth ends in the tenth chunk."""
    assert look(BIG, tree=True).read == 10
    with pytest.raises(VerificationError) as caught:
        look(BAD_TREE, tree=True)
    assert caught.value.message == (
        f"image of zot: layer {Digest.of(BAD_TREE)}: its hash tree covers 36864 of 40960 bytes"
    )
    assert caught.value.rule == "layer-mountable"


class Folder(Streams):
    """A repository of whose blobs any part is at hand; it counts what is asked for."""

    def __init__(self, *contents: bytes) -> None:
        super().__init__(*contents)
        self.asked: list[tuple[int, int]] = []

    def blob_range(self, descriptor: Descriptor, offset: int, size: int) -> bytes:
        self.asked.append((offset, size))
        return self.blobs[descriptor.digest][offset : offset + size]


@pytest.mark.parametrize("tree", [False, True])
def test_where_parts_are_at_hand_nothing_else_is_read(tree: bool) -> None:
    repository = Folder(BIG)
    near = cast("Repository", repository)
    require_mountable(near, manifest(BIG), "image of zot", tree=tree)
    assert repository.asked == [(0, BLOCK), (11 * BLOCK, BLOCK)][: 1 + tree]
    assert (repository.read, repository.closed) == (0, 0)


def test_where_parts_are_at_hand_the_tree_is_judged_too() -> None:
    near = cast("Repository", Folder(BAD_TREE))
    require_mountable(near, manifest(BAD_TREE), "image of zot", tree=False)
    with pytest.raises(VerificationError, match="its hash tree covers 36864 of 40960 bytes"):
        require_mountable(near, manifest(BAD_TREE), "image of zot", tree=True)


@pytest.mark.parametrize("tree", [False, True])
def test_every_layer_is_looked_at(tree: bool) -> None:
    bad = b"not a file system"
    with pytest.raises(VerificationError) as caught:
        look(BIG, bad, tree=tree)
    assert caught.value.message == (
        f"image of zot: layer {Digest.of(bad)}: is not a squashfs image"
    )
    assert look(BIG, layer_content(b"y"), tree=tree).closed == 2


def test_what_the_repository_finds_is_told() -> None:
    class Damaged:
        def open_blob(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
            raise DigestError(f"{descriptor.digest} is damaged")

    with pytest.raises(DigestError, match="is damaged"):
        require_mountable(cast("Repository", Damaged()), manifest(BIG), "x", tree=False)


@pytest.mark.parametrize("size", [1, 7, 4095, 4096, 4097, 9000, 100_000])
def test_blocks_of_a_stream(size: int) -> None:
    """Wherever its chunks end; what is behind the end is not there."""
    data = bytes(number % 251 for number in range(5 * BLOCK + 100))
    offsets = (0, BLOCK, 3 * BLOCK, 3 * BLOCK, 5 * BLOCK, 9 * BLOCK)
    chunks = (data[start : start + size] for start in range(0, len(data), size))
    stream = _Stream(chunks)
    found = [stream.block(offset) for offset in offsets]
    assert found == [data[offset : offset + BLOCK] for offset in offsets]
