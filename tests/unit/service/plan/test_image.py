"""The image manifest of a service: that of the hand-over, and one that a machine mounts."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from machineos.core.digest import Digest
from machineos.core.word import RootHash
from machineos.errors import DigestError, DocumentError, MissingError, VerificationError
from machineos.oci.model.atomfs import OLD_ROOT_HASH, Layer
from machineos.oci.model.documents import CONFIG
from machineos.service.plan.image import (
    check_blob,
    check_manifest,
    image_name,
)
from unit.service.bed import TYPE, Bed, descriptor


def blob(data: bytes) -> Digest:
    return Digest.of(data)


def test_the_bytes_of_a_blob_are_those_that_its_digest_names() -> None:
    digest = blob(b"data")
    assert check_blob(b"data", digest, what="w") == b"data"
    with pytest.raises(MissingError) as missing:
        check_blob(None, digest, what="w")
    assert str(missing.value) == f"w: {digest} is not in the store"
    for data in (b"dat", b"datA", b""):
        with pytest.raises(DigestError) as wrong:
            check_blob(data, digest, what="w")
        assert str(wrong.value).startswith("w: ")
        assert wrong.value.hint == "the store is damaged: install again"


def manifest(**changes: object) -> bytes:
    layer = descriptor(TYPE, Digest("sha256", "1" * 64), 4096)
    body: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor(CONFIG, blob(b"c"), 1),
        "layers": [{**layer, "annotations": {OLD_ROOT_HASH: "2" * 64}}],
    }
    body.update(changes)
    return json.dumps(body).encode()


SERVICE = msgspec.structs.replace(
    Bed().service("web"),
    config=str(blob(b"c")),
    layer=msgspec.structs.replace(
        Bed().service("web").layer, digest="sha256:" + "1" * 64, root_hash="2" * 64
    ),
)


def test_a_manifest_says_what_was_handed_over() -> None:
    assert image_name(SERVICE) == "image of web"
    found = check_manifest(SERVICE, manifest())
    assert found.layer == Layer(Digest("sha256", "1" * 64), 4096, TYPE, RootHash("2" * 64))
    assert found.filesystem == "squashfs"
    assert found.config == blob(b"c")


def layers(*changes: dict[str, Any]) -> bytes:
    (layer,) = json.loads(manifest())["layers"]
    return manifest(layers=[{**layer, **each} for each in changes])


@pytest.mark.parametrize(
    ("data", "rule", "words"),
    [
        (
            manifest(config=descriptor(CONFIG, blob(b"d"), 1)),
            "handover-config",
            f"the image's configuration is {blob(b'd')}, not {blob(b'c')}",
        ),
        (
            manifest(config=descriptor("application/x", blob(b"c"), 1)),
            "image-config",
            "is not an image: its configuration is 'application/x'",
        ),
        (
            manifest(config=descriptor(CONFIG, blob(b"c"), (1 << 20) + 1)),
            "image-config-size",
            "its configuration has 1048577 bytes, at most 1048576 are read",
        ),
        (manifest(layers=[]), "image-layers", "has 0 layers, a machine mounts only one"),
        (layers({}, {}), "image-layers", "has 2 layers, a machine mounts only one"),
        (
            layers({"mediaType": "application/vnd.oci.image.layer.v1.tar"}),
            "image-layer-type",
            f"layer sha256:{'1' * 64}: is 'application/vnd.oci.image.layer.v1.tar', "
            "not squashfs or EROFS with dm-verity",
        ),
        (
            layers({"annotations": {}}),
            "image-root-hash",
            f"layer sha256:{'1' * 64}: carries no verity root hash",
        ),
        (
            layers({"digest": "sha256:" + "3" * 64}),
            "handover-layer",
            "the image's layer is not the one handed over",
        ),
        (
            layers({"annotations": {OLD_ROOT_HASH: "3" * 64}}),
            "handover-layer",
            "the image's layer is not the one handed over",
        ),
    ],
)
def test_a_manifest_that_breaks_a_rule(data: bytes, rule: str, words: str) -> None:
    with pytest.raises(VerificationError) as caught:
        check_manifest(SERVICE, data)
    assert (str(caught.value), caught.value.rule) == (f"image of web: {words}", rule)


def test_the_image_is_judged_before_the_hand_over() -> None:
    """What no machine mounts is said to be so, whatever was handed over."""
    with pytest.raises(VerificationError) as caught:
        check_manifest(Bed().service("web"), layers({}, {}))
    assert caught.value.rule == "image-layers"


def test_a_manifest_of_another_shape() -> None:
    with pytest.raises(DocumentError, match=r"^image of web: "):
        check_manifest(SERVICE, b"[]")
