"""What a layer must be, by its first bytes and those at its hash tree."""

from __future__ import annotations

import pytest

from fakes.layers import head_of, layer_content, tree_of
from machineos.core.digest import Digest
from machineos.core.word import RootHash
from machineos.document.rules.layer import MOUNTABLE, Seen, layer_name, tree_at
from machineos.errors import VerificationError
from machineos.host.kernel.superblock import BLOCK
from machineos.oci.model.atomfs import Layer, layer_media_type
from machineos.oci.model.documents import Descriptor

D = Digest.of(b"layer")
GOOD = layer_content(b"files")
CUT = "is cut off: no hash tree follows its file system"
SQUASHFS = layer_media_type("squashfs", "zstd")
EROFS = layer_media_type("erofs", "zstd")


def layer(size: int, media_type: str = SQUASHFS) -> Layer:
    return Layer(D, size, media_type, RootHash("ab" * 32))


def said(seen: Seen) -> list[tuple[str, str]]:
    return list(MOUNTABLE.breaches(seen))


@pytest.mark.parametrize("media_type", [SQUASHFS, EROFS])
def test_a_layer_that_mounts(media_type: str) -> None:
    seen = Seen(layer(len(GOOD), media_type), GOOD[:BLOCK])
    assert tree_at(seen) == BLOCK
    assert said(seen) == []
    assert said(Seen(seen.layer, seen.start, GOOD[BLOCK:])) == []
    described = Descriptor(media_type=media_type, digest=D, size=len(GOOD))
    assert said(Seen(described, seen.start, GOOD[BLOCK:])) == []


@pytest.mark.parametrize(
    ("media_type", "start", "message"),
    [
        (SQUASHFS, b"hsqs", "is not a squashfs image"),
        (SQUASHFS, b"", "is not a squashfs image"),
        (EROFS, GOOD[:1000], "is not an EROFS image"),
        (SQUASHFS, bytes(1024) + GOOD[1024:BLOCK], "is not a squashfs image"),
        (EROFS, GOOD[:1024] + bytes(3072), "is not an EROFS image"),
        ("tar", GOOD[:BLOCK], f"layer {D}: is 'tar', not squashfs or EROFS with dm-verity"),
    ],
)
def test_what_is_no_file_system_of_its_type(media_type: str, start: bytes, message: str) -> None:
    seen = Seen(layer(len(GOOD), media_type), start, GOOD[BLOCK:])
    assert said(seen) == [("", message)]
    with pytest.raises(VerificationError):
        tree_at(seen)


@pytest.mark.parametrize(("blocks", "tree"), [(1, 1), (2, 2), (128, 2), (129, 4), (16385, 133)])
def test_the_whole_hash_tree_has_room(blocks: int, tree: int) -> None:
    """Superblock, and a level for every 128 blocks of the one below."""
    size = (blocks + tree) * BLOCK
    start = head_of(blocks).ljust(BLOCK, b"\0")
    assert said(Seen(layer(size), start)) == []
    assert said(Seen(layer(size - 1), start)) == [("", CUT)]
    assert said(Seen(layer(size - 1), start, tree_of(blocks)[:BLOCK])) == [("", CUT)]


def test_the_hash_tree_is_one_of_ours() -> None:
    def behind(data: bytes) -> list[tuple[str, str]]:
        return said(Seen(layer(len(GOOD)), GOOD[:BLOCK], data))

    assert behind(b"") == [("", "has no dm-verity data")]
    assert behind(bytes(BLOCK)) == [("", "has no dm-verity data behind its file system")]
    assert behind(tree_of(2)) == [("", "its hash tree covers 8192 of 4096 bytes")]


def test_who_asks_says_which_layer_it_is() -> None:
    seen = Seen(layer(len(GOOD)), b"")
    assert layer_name(seen.layer) == f"layer {D}"
    with pytest.raises(VerificationError) as caught:
        MOUNTABLE.require(seen, f"image of zot: {layer_name(seen.layer)}")
    assert caught.value.message == f"image of zot: layer {D}: is not a squashfs image"
    assert caught.value.hint == "build or convert the image with mosb"
    assert caught.value.rule == "layer-mountable"
