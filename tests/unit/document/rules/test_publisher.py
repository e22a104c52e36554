"""What the publisher refuses before a machine could: claims of the author, archives, signatures."""

from __future__ import annotations

import pytest

from machineos.core.digest import Digest
from machineos.document.rules import publisher, roothash
from machineos.errors import DigestError, SignatureError, VerificationError
from unit.document.rules.samples import rule
from unit.document.rules.test_images import image, layer

FOUND = Digest.of(b"found")


def claims(digest: str = "", size: int | None = None) -> dict[str, list[str]]:
    claimed = publisher.Claimed(digest, size, FOUND, 100)
    said = {one.name: [text for _, text in one.breaches(claimed)] for one in publisher.CLAIMS}
    assert {path for one in publisher.CLAIMS for path, _ in one.breaches(claimed)} <= {""}
    return {name: texts for name, texts in said.items() if texts}


def test_what_the_author_claims_is_checked_if_there_is_a_claim() -> None:
    assert claims() == {}
    assert claims(str(FOUND), 100) == {}
    other = str(Digest.of(b"other"))
    assert claims(other) == {"claim-digest": [f"is {FOUND}, not {other}"]}
    assert claims(size=99) == {"claim-size": ["has 100 bytes, not 99"]}
    assert claims(size=101) == {"claim-size": ["has 100 bytes, not 101"]}
    assert claims(size=0) == {"claim-size": ["has 100 bytes, not 0"]}
    with pytest.raises(DigestError) as caught:
        rule("claim-size").require(publisher.Claimed("", 99, FOUND, 100), "target x")
    assert caught.value.message == "target x: has 100 bytes, not 99"
    assert "at the source" in caught.value.hint


def test_layers_are_all_archives_or_all_file_systems() -> None:
    tar = layer(media_type="tar")
    for good in (image(layer()), image(tar), image(tar, tar), image(layer(), layer())):
        assert list(rule("source-mixed").breaches(publisher.Source(good, True))) == []
    mixed = publisher.Source(image(layer(), tar), True)
    assert list(rule("source-mixed").breaches(mixed)) == [
        ("", "mixes tar layers with squashfs or EROFS layers")
    ]


def test_archives_need_somebody_who_converts_them() -> None:
    tar, ready = image(layer(media_type="tar")), image(layer())
    assert publisher.has_tar_layers(tar)
    assert not publisher.has_tar_layers(ready)
    for good in (publisher.Source(tar, True), publisher.Source(ready, False)):
        rule("source-convertible").require(good, "x")
    with pytest.raises(VerificationError) as caught:
        rule("source-convertible").require(publisher.Source(tar, False), "target x")
    assert caught.value.message == (
        "target x: has tar layers, which cannot be mounted under dm-verity"
    )
    assert caught.value.hint == "convert it first: no converter is at hand here"
    assert [
        path for path, _ in rule("source-convertible").breaches(publisher.Source(tar, False))
    ] == [""]


def test_every_layer_is_signed() -> None:
    first, second = layer(), layer(digest=Digest.of(b"second"))
    both = image(first, second)
    everything = {first.digest: b"p7s", second.digest: b"p7s"}
    roothash.SIGNED.require(roothash.Signed(both, everything), "x")
    with pytest.raises(SignatureError) as caught:
        roothash.SIGNED.require(roothash.Signed(both, {first.digest: b"p7s"}), "image of x")
    assert caught.value.message == (
        f"image of x: nobody signed the root hash of layer {second.digest}"
    )
    assert caught.value.rule == "root-hash-signed"
    assert "mosb manifest publish" in caught.value.hint
