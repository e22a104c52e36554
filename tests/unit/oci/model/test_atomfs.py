from __future__ import annotations

import pytest

from frozen import faults
from machineos.core.digest import Digest
from machineos.core.word import RootHash
from machineos.errors import VerificationError
from machineos.oci.model.atomfs import (
    NEW_ROOT_HASH,
    OLD_ROOT_HASH,
    Layer,
    LayerType,
    layer_media_type,
    parse_layer_type,
    root_hash_annotations,
    root_hash_of,
)
from machineos.oci.model.documents import Descriptor

PREFIX = "application/vnd.stacker.image.layer."
HASH = "0123456789abcdef" * 4


def layer(**annotations: str) -> Descriptor:
    named = {
        {"old": OLD_ROOT_HASH, "new": NEW_ROOT_HASH}[key]: value
        for key, value in annotations.items()
    }
    return Descriptor(media_type="x", digest=Digest.of(b""), size=0, annotations=named)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("squashfs", LayerType("squashfs", "")),
        ("squashfs+zstd", LayerType("squashfs", "zstd")),
        ("squashfs+zstd+verity", LayerType("squashfs", "zstd")),
        ("squashfs+gzip+verity", LayerType("squashfs", "gzip")),
        ("squashfs+verity", LayerType("squashfs", "")),
        ("erofs", LayerType("erofs", "")),
        ("erofs+lz4hc", LayerType("erofs", "lz4hc")),
        ("erofs+lz4", LayerType("erofs", "lz4")),
        ("erofs+zstd+verity", LayerType("erofs", "zstd")),
    ],
)
def test_media_types_of_both_generations(text: str, expected: LayerType) -> None:
    assert parse_layer_type(PREFIX + text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "application/vnd.oci.image.layer.v1.tar+gzip",
        PREFIX + "tar",
        PREFIX + "squashfs+brotli",
        PREFIX + "squashfs+verity+zstd",
        PREFIX + "squashfs+zstd+verity+x",
        PREFIX + "squashfs\n",
        PREFIX,
        "",
    ],
)
def test_other_media_types_are_none_of_ours(text: str) -> None:
    assert parse_layer_type(text) is None


def test_what_we_write_can_be_read() -> None:
    assert layer_media_type("squashfs", "zstd") == PREFIX + "squashfs+zstd+verity"
    assert layer_media_type("erofs", "lz4hc") == PREFIX + "erofs+lz4hc"
    written = root_hash_annotations(RootHash(HASH))
    assert written == {OLD_ROOT_HASH: HASH, NEW_ROOT_HASH: HASH}
    assert {type(value) for value in written.values()} == {str}  # else nobody could encode them


def test_either_annotation_or_both_equal() -> None:
    assert root_hash_of(layer(old=HASH)) == HASH
    assert root_hash_of(layer(new=HASH)) == HASH
    assert root_hash_of(layer(old=HASH, new=HASH)) == HASH


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ({}, "carries no verity root hash"),
        ({"old": HASH, "new": "f" * 64}, "differ"),
        ({"old": HASH, "new": ""}, "differ"),
        ({"old": ""}, "is not a verity root hash"),
        ({"old": "0" * 64}, "is not a verity root hash"),
        ({"old": HASH.upper()}, "is not a verity root hash"),
        ({"new": HASH[:-1]}, "is not a verity root hash"),
        ({"new": HASH + "\n"}, "is not a verity root hash"),
        ({"new": f"sha256:{HASH}"}, "is not a verity root hash"),
    ],
)
def test_refuses_every_other_root_hash(annotations: dict[str, str], message: str) -> None:
    with pytest.raises(VerificationError, match=message):
        root_hash_of(layer(**annotations))


def test_a_layer_is_what_matters_of_its_descriptor() -> None:
    digest = Digest.of(b"layer")
    described = Descriptor(
        media_type="m", digest=digest, size=7, annotations={NEW_ROOT_HASH: HASH, "other": "x"}
    )
    assert Layer.of(described) == Layer(digest, 7, "m", RootHash(HASH))
    assert list(faults(Layer.of(described))) == []
    with pytest.raises(VerificationError, match="carries no verity root hash"):
        Layer.of(layer())
