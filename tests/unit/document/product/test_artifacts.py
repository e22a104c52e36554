"""The artifacts: digest for digest those of seed 002."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest

from machineos.core.digest import Digest
from machineos.core.word import RootHash
from machineos.document.product.artifacts import (
    CREATED,
    LAYER_DIGEST,
    LAYER_ROOT_HASH,
    Artifact,
    install_artifacts,
    root_hash_artifact,
    timestamp,
)
from machineos.oci.model.documents import Descriptor, parse_manifest

# What seed 002 shows: the digest and size of each layer, and of the manifest around it.
SEED_INSTALL = "sha256:d63dbe48800f04a141f414e30f2d3b00b61d00e50d4b3ceaf0fc8e7e4953de13"
SEED_CERTIFICATE = "sha256:5fddac82c01188d2389e86dfe41f8293ba6815f041f0f9a196cee275410912a4"


def as_in_the_seed(artifact: Artifact, digest: str, size: int, subject: str = "") -> bytes:
    """Return the bytes of ``artifact`` with the seed's layer, subject and time in it."""
    manifest = artifact.manifest
    layer = msgspec.structs.replace(manifest.layers[0], digest=Digest.parse(digest), size=size)
    notes = {CREATED: "2023-12-20T08:48:03-06:00"}
    changed = msgspec.structs.replace(manifest, layers=(layer,), annotations=notes)
    if manifest.subject is not None:
        other = msgspec.structs.replace(manifest.subject, digest=Digest.parse(subject), size=584)
        changed = msgspec.structs.replace(changed, subject=other)
    return changed.to_bytes()


def test_the_artifacts_have_the_digests_that_the_seed_prints() -> None:
    made = install_artifacts(b"i", b"s", b"c", created=datetime(2023, 12, 20, tzinfo=UTC))
    install = as_in_the_seed(
        made.install,
        "sha256:50a93be19bf1027b8363554359e288890324fa7e21002df072e50955e8336954",
        829,
    )
    assert (len(install), str(Digest.of(install))) == (584, SEED_INSTALL)
    certificate = as_in_the_seed(
        made.certificate,
        "sha256:136d70873171b931a0e0002fbb31589786038f9419a687f9a47e77b423ba6911",
        1285,
        SEED_INSTALL,
    )
    assert (len(certificate), str(Digest.of(certificate))) == (755, SEED_CERTIFICATE)
    signature = as_in_the_seed(
        made.signature,
        "sha256:313ac3c232b47ead121c3ed0a3a0e38f9768d57cfa5a4c76649f2d51dc73efd9",
        256,
        SEED_INSTALL,
    )
    assert len(signature) == 765


def test_certificate_and_signature_refer_to_the_install_document() -> None:
    made = install_artifacts(b"i", b"s", b"c", created=datetime(2023, 12, 20, tzinfo=UTC))
    for artifact in (made.certificate, made.signature):
        subject = artifact.manifest.subject
        assert subject is not None
        assert subject.digest == Digest.of(made.install.data)
        assert subject.size == len(made.install.data)


def test_time_is_written_in_utc_whatever_its_zone() -> None:
    zone = timezone(timedelta(hours=-6))
    assert timestamp(datetime(2023, 12, 20, 8, 48, 3, 999, zone)) == "2023-12-20T14:48:03Z"


@pytest.mark.parametrize("count", [1, 3])
def test_root_hash_artifact_names_each_layer_and_its_root_hash(count: int) -> None:
    image = Descriptor(
        media_type="application/vnd.oci.image.manifest.v1+json",
        digest=Digest.of(b"image"),
        size=5,
        annotations={"org.opencontainers.image.ref.name": "tag"},
    )
    signed = tuple(
        (Digest.of(b"layer%d" % n), RootHash(Digest.of(b"root%d" % n).hex), b"p7s%d" % n)
        for n in range(count)
    )
    artifact = root_hash_artifact(image, signed)
    manifest = parse_manifest(artifact.data, name="artifact")
    assert manifest.artifact_type == "application/vnd.machine.roothash.signature"
    assert manifest.subject is not None
    assert manifest.subject.annotations == {}
    assert CREATED not in manifest.annotations
    for entry, (layer, root_hash, blob) in zip(manifest.layers, signed, strict=True):
        assert entry.media_type == "application/pkcs7-signature"
        assert entry.digest == Digest.of(blob)
        assert entry.annotations == {
            "org.opencontainers.image.title": f"{layer.hex}.p7s",
            LAYER_DIGEST: str(layer),
            LAYER_ROOT_HASH: root_hash,
        }
