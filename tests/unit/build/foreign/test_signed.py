"""Whose signature counts, wherever it lies."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.archive import ArchivedRegistry, pack
from fakes.repository import MemoryRegistry, MemoryRepository
from machineos.build.foreign.archives import open_oci
from machineos.build.foreign.signed import require_signed, signature_tag
from machineos.core.digest import Digest
from machineos.errors import SignatureError, TransferError
from machineos.oci.layout.folder import LayoutRegistry, LayoutRepository
from machineos.oci.model.documents import (
    EMPTY_DESCRIPTOR,
    INDEX,
    MANIFEST,
    Descriptor,
    Index,
    Manifest,
)
from machineos.oci.model.repository import Registry
from machineos.oci.registry.client import HttpRegistry
from machineos.trust.cosign.key import CosignKey, parse_key
from machineos.trust.cosign.simple import SIGNATURE_NOTE, SIMPLE_SIGNING, make_payload
from unit.oci import conftest
from unit.trust.cosign.signing import PRIVATE, PUBLIC, bundle, statement
from vectors.cosign import BUNDLE_FILE, DIGEST, IMAGE, KEYS, SAVED_INDEX, SIGNATURES, put_signed

fake = conftest.fake
docker_registry = conftest.docker_registry

SUPPORTED = [one for one in SIGNATURES if "ed25519ph" not in one]
NOTATION = "application/vnd.cncf.notary.signature"


def key_of(name: str) -> CosignKey:
    return parse_key(KEYS[SIGNATURES[name].key], name="k.pub")


def other_than(name: str) -> CosignKey:
    return parse_key(KEYS["rsa" if SIGNATURES[name].key == "p256" else "p256"], name="other.pub")


@pytest.fixture(
    params=["memory", "layout", "archive", "fake",
            pytest.param("docker-registry", marks=pytest.mark.tool("docker-registry"))]
)  # fmt: skip
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    """Each kind of place for images."""
    if request.param == "memory":
        yield MemoryRegistry()
    elif request.param == "layout":
        yield LayoutRegistry(tmp_path, writable=True)
    elif request.param == "archive":
        yield ArchivedRegistry(tmp_path)
    else:
        made = request.getfixturevalue(request.param.replace("-", "_"))
        with HttpRegistry(made if isinstance(made, str) else made.host) as client:
            yield client


@pytest.mark.parametrize("recorded", SUPPORTED)
def test_every_kind_in_every_place(registry: Registry, recorded: str) -> None:
    repository = registry.repository(f"test/{recorded.replace(' ', '-')}")
    put_signed(repository, recorded)
    require_signed(repository, (DIGEST,), key_of(recorded), what="x")
    with pytest.raises(SignatureError) as caught:
        require_signed(repository, (DIGEST,), other_than(recorded), what="the image")
    assert caught.value.message.startswith("the image: is not signed by other.pub\n  a ")
    with pytest.raises(SignatureError, match="it has no signature"):
        require_signed(repository, (Digest.of(b"other"),), key_of(recorded), what="x")


def test_an_image_without_a_signature() -> None:
    repository = MemoryRepository()
    put_signed(repository)
    with pytest.raises(SignatureError) as caught:
        require_signed(repository, (DIGEST,), key_of("p256 tag"), what="x")
    assert caught.value.message == "x: is not signed by k.pub\n  it has no signature"
    assert f"cosign sign --key KEY IMAGE@{DIGEST}" in caught.value.hint


def test_the_signature_of_the_index_or_of_what_was_chosen() -> None:
    repository = MemoryRepository()
    put_signed(repository, "p256 tag")
    key = key_of("p256 tag")
    for digests in ((DIGEST, Digest.of(b"")), (Digest.of(b""), DIGEST)):
        require_signed(repository, digests, key, what="x")


def test_layers_of_another_kind_are_passed_over() -> None:
    repository = MemoryRepository()
    put_signed(repository, "p256 bundle", tag=signature_tag(DIGEST))  # an image, as it happens
    require_signed(repository, (DIGEST,), key_of("p256 bundle"), what="x")


def put_simple(
    repository: MemoryRepository | LayoutRepository, *layers: tuple[bytes, str], **more: str
) -> None:
    """Store signatures (payload, note) under the tag of the image."""
    entries = []
    for payload, note in layers:
        entry = Descriptor(
            media_type=SIMPLE_SIGNING,
            digest=Digest.of(payload),
            size=len(payload),
            annotations={SIGNATURE_NOTE: note, **more},
        )
        repository.put_blob(entry, (payload,))
        entries.append(entry)
    repository.put_blob(EMPTY_DESCRIPTOR, (b"{}",))
    made = Manifest(media_type=MANIFEST, config=EMPTY_DESCRIPTOR, layers=tuple(entries))
    repository.put_manifest(made.to_bytes(), media_type=MANIFEST, tag=signature_tag(DIGEST))


def noted(payload: bytes) -> tuple[bytes, str]:
    return payload, base64.b64encode(PRIVATE.sign(payload)).decode()


GOOD = noted(make_payload(DIGEST, "a/b"))
OTHER = noted(make_payload(Digest.of(b"other"), "a/b"))


def test_one_right_one_of_several_is_enough() -> None:
    repository = MemoryRepository()
    put_signed(repository)
    put_simple(repository, OTHER, (GOOD[0], OTHER[1]), (b"x", ""), GOOD)
    require_signed(repository, (DIGEST,), PUBLIC, what="x")


def test_why_each_signature_does_not_count() -> None:
    repository = MemoryRepository()
    put_signed(repository, "p256 bundle")
    put_simple(repository, OTHER, (GOOD[0], OTHER[1]), noted(b"{}"))
    with pytest.raises(SignatureError) as caught:
        require_signed(repository, (DIGEST,), PUBLIC, what="x")
    assert caught.value.message.split("\n") == [
        "x: is not signed by k.pub",
        f"  k.pub has signed {Digest.of(b'other')}, not this",
        "  a signature is not by k.pub",
        "  a signature is over None, which is no image",
        "  a bundle is not signed by k.pub",
    ]


def refer(repository: MemoryRepository, kind: str, data: bytes, media_type: str = "") -> None:
    """Store an artifact that refers to the image."""
    layer = Descriptor(media_type=media_type or kind, digest=Digest.of(data), size=len(data))
    repository.put_blob(layer, (data,))
    made = Manifest(
        media_type=MANIFEST,
        artifact_type=kind,
        config=EMPTY_DESCRIPTOR,
        layers=(layer,),
        subject=Descriptor(media_type=MANIFEST, digest=DIGEST, size=len(IMAGE)),
    )
    repository.put_manifest(made.to_bytes(), media_type=MANIFEST)


BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"


def test_kinds_that_are_not_supported_are_named() -> None:
    repository = MemoryRepository()
    put_signed(repository)
    put_simple(repository, OTHER, **{"dev.sigstore.cosign/certificate": "PEM"})
    refer(repository, NOTATION, b"jws")
    keyless = {**bundle(statement(DIGEST)), "verificationMaterial": {"certificate": {}}}
    refer(repository, BUNDLE, json.dumps(keyless).encode())
    refer(repository, BUNDLE, json.dumps({"mediaType": "old"}).encode())
    provenance = bundle(statement(DIGEST, kind="https://slsa.dev/provenance/v1"))
    refer(repository, BUNDLE, json.dumps(provenance).encode())
    refer(repository, "application/spdx+json", b"{}")
    with pytest.raises(SignatureError) as caught:
        require_signed(repository, (DIGEST,), PUBLIC, what="x")
    for text in (
        "Notation is not supported",
        "keyless signature (a certificate of Fulcio) is not supported",
        "'old' is not supported",
        "slsa.dev/provenance/v1' of an image, not that it is signed",
    ):
        assert text in caught.value.message
    refer(repository, BUNDLE, json.dumps(bundle(statement(DIGEST))).encode())
    require_signed(repository, (DIGEST,), PUBLIC, what="x")


def test_a_bundle_that_is_given_apart() -> None:
    repository = MemoryRepository()
    put_signed(repository)
    key = key_of("p256 tag")
    require_signed(repository, (DIGEST,), key, bundle=BUNDLE_FILE, what="x")
    for bad, message in (
        (b"{", "is not JSON"),
        (json.dumps(bundle(statement(DIGEST))), "by k.pub"),
    ):
        data = bad if isinstance(bad, bytes) else bad.encode()
        with pytest.raises(SignatureError, match=message):
            require_signed(repository, (DIGEST,), key, bundle=data, what="x")
    other = Digest.of(b"other")
    with pytest.raises(SignatureError, match=f"has signed {DIGEST}, not this"):
        require_signed(repository, (other,), key, bundle=BUNDLE_FILE, what="x")


def test_an_unreadable_signature_is_stepped_over() -> None:
    repository = MemoryRepository()
    put_signed(repository, "p256 bundle")
    empty = Index(media_type=INDEX, manifests=())
    repository.put_manifest(empty.to_bytes(), media_type=INDEX, tag=signature_tag(DIGEST))
    require_signed(repository, (DIGEST,), key_of("p256 bundle"), what="x")
    repository.blobs[repository.named[signature_tag(DIGEST)]] = b"damaged"
    require_signed(repository, (DIGEST,), key_of("p256 bundle"), what="x")
    for layer in SIGNATURES["p256 bundle"].document.layers:
        del repository.blobs[layer.digest]
    with pytest.raises(SignatureError, match="is not there"):
        require_signed(repository, (DIGEST,), key_of("p256 bundle"), what="x")


def test_a_registry_that_fails_is_not_an_image_without_signatures() -> None:
    class Failing(MemoryRepository):
        def referrers(self, digest: Digest, *, artifact_type: str = "") -> tuple[Descriptor, ...]:
            raise TransferError("the registry failed")

    with pytest.raises(TransferError):
        require_signed(Failing(), (DIGEST,), PUBLIC, what="x")


def test_how_many_are_looked_at() -> None:
    repository = MemoryRepository()
    put_signed(repository)
    put_simple(repository, *[OTHER] * 64, GOOD)
    with pytest.raises(SignatureError):
        require_signed(repository, (DIGEST,), PUBLIC, what="x")
    put_simple(repository, *[OTHER] * 63, GOOD)
    require_signed(repository, (DIGEST,), PUBLIC, what="x")


def test_a_layout_that_cosign_saved_and_an_archive_of_it(tmp_path: Path) -> None:
    layout = LayoutRepository(tmp_path / "l", writable=True)
    put_signed(layout, "p256 tag")
    (tmp_path / "l/index.json").write_bytes(SAVED_INDEX)
    key = key_of("p256 tag")
    require_signed(layout, (DIGEST,), key, what="x")
    with pack(tmp_path / "l", tmp_path / "x.tar").open("rb") as file:
        archive = open_oci(file.fileno(), name="x", selector=str(DIGEST))
        require_signed(archive, (DIGEST,), key, what="x")
