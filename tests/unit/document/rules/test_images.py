"""What an image must be to be mounted, by its manifest, and that it is the one that was signed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from machineos.core.digest import Digest
from machineos.document.model.install import Network, Target
from machineos.document.rules import images
from machineos.errors import DigestError, VerificationError
from machineos.oci.model.atomfs import NEW_ROOT_HASH, OLD_ROOT_HASH
from machineos.oci.model.documents import CONFIG, MANIFEST, Descriptor, Manifest
from unit.document.rules.samples import rule

SQUASHFS = "application/vnd.stacker.image.layer.squashfs+zstd+verity"
DATA = b"manifest"
D = Digest.of(b"layer")


def layer(**changes: object) -> Descriptor:
    values: dict[str, Any] = {
        "media_type": SQUASHFS,
        "digest": D,
        "size": 5,
        "annotations": {NEW_ROOT_HASH: "a" * 64},
    }
    values |= changes
    return Descriptor(**values)


def image(*layers: Descriptor, **config: object) -> Manifest:
    values: dict[str, Any] = {"media_type": CONFIG, "digest": Digest.of(b"c"), "size": 1}
    entry = Descriptor(**{**values, **config})
    return Manifest(media_type=MANIFEST, config=entry, layers=layers or (layer(),))


def said(manifest: Manifest) -> dict[str, list[str]]:
    """Return what each rule says."""
    rules = (*images.RULES, images.CONFIG_SIZE)
    found = {one.name: [message for _, message in one.breaches(manifest)] for one in rules}
    paths = {path for one in rules for path, _ in one.breaches(manifest)}
    assert paths <= {""}
    return {name: messages for name, messages in found.items() if messages}


def test_an_image_that_mounts() -> None:
    assert said(image()) == {}
    assert said(image(size=1 << 20)) == {}
    assert said(image(layer(annotations={OLD_ROOT_HASH: "a" * 64}))) == {}


@pytest.mark.parametrize(
    ("manifest", "name", "message"),
    [
        (
            image(media_type="application/x"),
            "image-config",
            "is not an image: its configuration is 'application/x'",
        ),
        (
            image(size=(1 << 20) + 1),
            "image-config-size",
            "its configuration has 1048577 bytes, at most 1048576 are read",
        ),
        (
            image(layer(media_type="tar")),
            "image-layer-type",
            f"layer {D}: is 'tar', not squashfs or EROFS with dm-verity",
        ),
        (
            image(layer(annotations={})),
            "image-root-hash",
            f"layer {D}: carries no verity root hash",
        ),
        (
            image(layer(annotations={NEW_ROOT_HASH: "a" * 64, OLD_ROOT_HASH: "b" * 64})),
            "image-root-hash",
            f"layer {D}: its two root hash annotations differ",
        ),
        (
            image(layer(annotations={NEW_ROOT_HASH: "0" * 64})),
            "image-root-hash",
            f"layer {D}: '{'0' * 64}' is not a verity root hash",
        ),
    ],
)
def test_an_image_that_does_not(manifest: Manifest, name: str, message: str) -> None:
    assert said(manifest) == {name: [message]}
    with pytest.raises(VerificationError) as caught:
        rule(name).require(manifest, "image of x")
    assert caught.value.message == f"image of x: {message}"
    assert caught.value.rule == name


def test_a_configuration_that_nobody_reads_at_boot_stops_no_machine() -> None:
    images.check_image(image(size=1 << 40), "image of x", "x")


@pytest.mark.parametrize(
    ("service", "count", "message"),
    [
        ("x", 0, "has 0 layers, a machine mounts only one"),
        ("x", 1, ""),
        ("x", 2, "has 2 layers, a machine mounts only one"),
        ("hostfs", 2, "has 2 layers, a machine mounts only one"),
        ("bootkit", 1, "has 1 layers, a bootkit has 2"),
        ("bootkit", 2, ""),
        ("bootkit", 3, "has 3 layers, a bootkit has 2"),
    ],
)
def test_how_many_layers_an_image_has(service: str, count: int, message: str) -> None:
    manifest = msgspec.structs.replace(image(), layers=(layer(),) * count)
    found = [said for _, said in images.LAYERS.breaches(images.Owned(manifest, service))]
    assert found == ([message] if message else [])
    if message:
        with pytest.raises(VerificationError, match=message) as caught:
            images.check_image(manifest, "it", service)
        assert caught.value.rule == "image-layers"
    else:
        images.check_image(manifest, "it", service)


def test_every_layer_is_looked_at() -> None:
    found = said(image(layer(), layer(media_type="tar", annotations={})))
    assert sorted(found) == ["image-layer-type", "image-root-hash"]


def named(data: bytes = DATA, **changes: object) -> images.Named:
    values: dict[str, Any] = {
        "service_name": "x",
        "version": "1",
        "service_type": "container",
        "network": Network(type="none"),
        "nsgroup": "",
        "digest": str(Digest.of(DATA)),
        "size": len(DATA),
    }
    return images.Named(Target(**{**values, **changes}), data)


def test_the_manifest_is_the_one_that_was_signed() -> None:
    size, digest = images.NAMED
    assert (size.name, digest.name) == ("image-size", "image-digest")
    assert list(size.breaches(named())) == []
    assert list(digest.breaches(named())) == []
    assert list(size.breaches(named(size=9))) == [("", "8 bytes, the manifest says 9")]
    assert list(digest.breaches(named(b"manifesT"))) == [
        ("", f"digest is {Digest.of(b'manifesT')}, expected {Digest.of(DATA)}")
    ]
    for one, bad in ((size, named(size=7)), (digest, named(b"manifesT"))):
        with pytest.raises(DigestError, match="image of x"):
            one.require(bad, "image of x")
