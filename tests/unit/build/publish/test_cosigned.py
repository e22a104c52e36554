"""What we publish, for those who check it with cosign: proved without the code that writes it."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fakes.repository import MemoryRepository
from machineos.build.foreign.signed import require_signed, signature_tag
from machineos.build.publish.cosigned import Cosigned, cosign
from machineos.build.publish.verify import require_beside
from machineos.core.digest import Digest
from machineos.core.run import run
from machineos.errors import SignatureError, TransferError, VerificationError
from machineos.oci.graph.copy import copy_graph
from machineos.oci.model.documents import (
    EMPTY_DESCRIPTOR,
    INDEX,
    MANIFEST,
    Descriptor,
    Index,
    Manifest,
    parse_manifest,
)
from machineos.oci.model.reference import check_tag
from machineos.oci.model.repository import Repository
from machineos.trust.cosign.key import parse_key
from unit.document.conftest import World, the_authority
from vectors.cosign import KEYS, SIGNATURES, WE_SIGNED
from waiting import PATIENCE

SUBJECT = WE_SIGNED["subject"].encode()
SUBJECT_ENTRY = Descriptor(media_type=MANIFEST, digest=Digest.of(SUBJECT), size=len(SUBJECT))


def public_key(certificate: bytes) -> bytes:
    key = x509.load_pem_x509_certificate(certificate).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def made(subject: Descriptor = SUBJECT_ENTRY, name: str = "machine/record") -> Cosigned:
    return cosign(subject, the_authority().publisher, name)


def stored(repository: Repository, subject: Descriptor = SUBJECT_ENTRY) -> Manifest:
    _, data = repository.manifest(signature_tag(subject.digest))
    document = json.loads(data)
    assert document["subject"]["digest"] == str(subject.digest)
    return parse_manifest(data, name="x")


@pytest.mark.tool("openssl")
def test_openssl_verifies_what_is_published(world: World, tmp_path: Path) -> None:
    published = world.publish()
    own = world.registry.repository("machine/install")
    tag = f"sha256-{published.descriptor.digest.hex}.sig"
    body = json.loads(own.manifest(tag)[1])
    (layer,) = body["layers"]
    assert layer["mediaType"] == "application/vnd.dev.cosign.simplesigning.v1+json"
    note = layer["annotations"]["dev.cosignproject.cosign/signature"]
    found = Descriptor(media_type="", digest=Digest.parse(layer["digest"]), size=layer["size"])
    payload = own.blob(found, limit=4096)
    assert json.loads(payload) == {
        "critical": {
            "identity": {"docker-reference": "machine/install"},
            "image": {"docker-manifest-digest": str(published.descriptor.digest)},
            "type": "cosign container image signature",
        },
        "optional": None,
    }
    (tmp_path / "payload").write_bytes(payload)
    (tmp_path / "signature").write_bytes(base64.b64decode(note))
    (tmp_path / "key.pem").write_bytes(public_key(world.authority.publisher.certificate_pem))
    said = run(
        ["openssl", "dgst", "-sha256", "-verify", tmp_path / "key.pem",
         "-signature", tmp_path / "signature", tmp_path / "payload"],
        timeout=PATIENCE,
    )  # fmt: skip
    assert said.text == "Verified OK"


def test_it_has_the_form_that_cosign_verified() -> None:
    """All but the signature itself is byte for byte what cosign 2 and 3 took, ``WE_SIGNED``."""
    repository = MemoryRepository()
    made().store(repository)
    _, data = repository.manifest(signature_tag(SUBJECT_ENTRY.digest))
    now, then = json.loads(data), json.loads(WE_SIGNED["manifest"])
    signature = then["layers"][0].pop("annotations")["dev.cosignproject.cosign/signature"]
    assert list(now["layers"][0].pop("annotations")) == ["dev.cosignproject.cosign/signature"]
    assert now == then
    for key, blob in (("config", now["config"]), ("payload", now["layers"][0])):
        assert repository.blobs[Digest.parse(blob["digest"])] == WE_SIGNED[key].encode()
    recorded = parse_key(WE_SIGNED["key"].encode(), name="k.pub")
    assert isinstance(recorded.key, rsa.RSAPublicKey)
    raw = base64.b64decode(signature)
    payload = WE_SIGNED["payload"].encode()
    recorded.key.verify(raw, payload, padding.PKCS1v15(), hashes.SHA256())
    config = json.loads(SIGNATURES["p256 tag"].config)
    assert json.loads(WE_SIGNED["config"]).keys() == config.keys()


def test_it_is_demanded_as_any_other_signature() -> None:
    repository, copy = MemoryRepository(), MemoryRepository()
    subject = put_subject(repository)
    made(subject).store(repository)
    pem = public_key(the_authority().publisher.certificate_pem)
    key = parse_key(pem, name="k.pub")
    require_signed(repository, (subject.digest,), key, what="x")
    # It goes where its subject goes, as a referrer.
    copy_graph(repository, copy, str(subject.digest), tag="1", referrers=True)
    assert copy.tags() == ("1",)
    require_signed(copy, (subject.digest,), key, what="x")
    other = parse_key(KEYS["rsa"], name="other.pub")
    with pytest.raises(SignatureError):
        require_signed(copy, (subject.digest,), other, what="x")


def put_subject(repository: Repository) -> Descriptor:
    """Store an artifact without content."""
    repository.put_blob(EMPTY_DESCRIPTOR, (b"{}",))
    artifact = Manifest(
        media_type=MANIFEST,
        artifact_type="application/x",
        config=EMPTY_DESCRIPTOR,
        layers=(EMPTY_DESCRIPTOR,),
    )
    return repository.put_manifest(artifact.to_bytes(), media_type=MANIFEST, tag="1")


def test_a_deep_look_reads_it_where_it_is(world: World) -> None:
    published = world.publish().descriptor.digest
    own = world.registry.repository("machine/install")
    require_beside(own, published)
    require_beside(own, Digest.of(b"what an older builder published"))
    (layer,) = stored(own, own.resolve("1.0.0")).layers
    path = own.blob_path(layer.digest)
    path.write_bytes(path.read_bytes().replace(b"critical", b"Critical"))
    with pytest.raises(VerificationError, match="the signature for cosign is damaged"):
        require_beside(own, published)


class Counting(MemoryRepository):
    """Counts the writes."""

    written = 0

    def put_manifest(self, data: bytes, *, media_type: str, tag: str | None = None) -> Descriptor:
        self.written += 1
        return super().put_manifest(data, media_type=media_type, tag=tag)


def test_publishing_again_asks_once_and_writes_nothing() -> None:
    repository = Counting()
    made().store(repository)
    before, repository.asked = dict(repository.blobs), []
    made().store(repository)
    assert repository.written == 1
    assert repository.blobs == before
    assert len(repository.asked) == 1


def test_the_signatures_of_others_stay() -> None:
    repository = MemoryRepository()
    tag = signature_tag(SUBJECT_ENTRY.digest)
    theirs = SIGNATURES["p256 tag"]
    for layer, blob in zip(theirs.document.layers, theirs.blobs, strict=True):
        repository.put_blob(layer, (blob,))
    repository.put_manifest(theirs.manifest, media_type=MANIFEST, tag=tag)
    made().store(repository)
    assert stored(repository).layers == (*theirs.document.layers, made().layer)
    again = dict(repository.blobs)
    made().store(repository)
    assert repository.blobs == again


def test_a_signature_that_is_not_ours_under_our_payload_gives_way() -> None:
    repository = MemoryRepository()
    good = made()
    note = {"dev.cosignproject.cosign/signature": "AAAA"}
    bad = Descriptor(
        media_type=good.layer.media_type,
        digest=good.layer.digest,
        size=good.layer.size,
        annotations=note,
    )
    repository.put_blob(bad, (good.payload,))
    config = Descriptor(media_type="x", digest=Digest.of(b"{}"), size=2)
    repository.put_blob(config, (b"{}",))
    body = Manifest(media_type=MANIFEST, config=config, layers=(bad,))
    tag = signature_tag(SUBJECT_ENTRY.digest)
    repository.put_manifest(body.to_bytes(), media_type=MANIFEST, tag=tag)
    good.store(repository)
    assert stored(repository).layers == (good.layer,)


def test_what_is_no_signature_gives_way() -> None:
    repository = MemoryRepository()
    tag = check_tag(signature_tag(SUBJECT_ENTRY.digest))
    empty = Index(media_type=INDEX, manifests=())
    repository.put_manifest(empty.to_bytes(), media_type=INDEX, tag=tag)
    made().store(repository)
    assert stored(repository).layers == (made().layer,)
    repository.blobs[repository.named[tag]] = b"damaged"
    made().store(repository)
    assert stored(repository).layers == (made().layer,)


def test_a_registry_that_fails_is_said() -> None:
    class Failing(MemoryRepository):
        def manifest(self, reference: str) -> tuple[Descriptor, bytes]:
            raise TransferError("the registry failed")

    with pytest.raises(TransferError):
        made().store(Failing())
