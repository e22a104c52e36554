"""What was verified was made by the verifier: nobody else can make it."""

from __future__ import annotations

from typing import Any

import pytest

from changed import replace
from fakes.repository import MemoryRepository
from machineos.core.digest import Digest
from machineos.core.word import DocumentId
from machineos.document.model.limits import MAX_INSTALL
from machineos.document.product.artifacts import INSTALL, Artifact, install_artifacts
from machineos.document.verify.proof import Proof
from machineos.document.verify.published import (
    Fetched,
    VerifiedInstall,
    fetch_install,
    fetch_verified,
    verify_install,
)
from machineos.errors import (
    DigestError,
    DocumentError,
    OrderError,
    SignatureError,
    VerificationError,
)
from machineos.oci.model.documents import (
    CONFIG,
    EMPTY_DESCRIPTOR,
    MANIFEST,
    Descriptor,
    Manifest,
)
from unit.document.conftest import NOW, PRODUCT, signed, the_authority
from unit.document.product.test_install import SEED

DATA = SEED.to_bytes()


def test_only_the_holder_of_a_proof_passes() -> None:
    proof = Proof("Thing", "make_thing")
    proof.require(proof)
    for other in (None, Proof("Thing", "make_thing")):
        with pytest.raises(OrderError) as caught:
            proof.require(other)
        assert caught.value.message == (
            "a Thing is made by make_thing alone, which checks it first"
        )


def test_nobody_else_makes_a_verified_install() -> None:
    good = signed(DATA)
    with pytest.raises(OrderError, match="a VerifiedInstall is made by verify_install alone"):
        VerifiedInstall(good.install, good.data, good.sha256, good.publisher)
    with pytest.raises(OrderError):
        VerifiedInstall(
            good.install, good.data, good.sha256, good.publisher, Proof("VerifiedInstall", "me")
        )
    with pytest.raises(OrderError):
        replace(good, data=b"other")


def test_what_was_verified_is_named_by_its_bytes() -> None:
    good = signed(DATA)
    assert good.sha256 == DocumentId.of(DATA)
    assert isinstance(good.sha256, DocumentId)
    assert (good.install, good.data) == (SEED, DATA)


def fetch(repository: MemoryRepository, reference: str = "1.0.0") -> Fetched:
    return fetch_verified(
        repository, reference, ca_pem=the_authority().pem, at=NOW, product=PRODUCT
    )


def put(repository: MemoryRepository, data: bytes = DATA) -> Descriptor:
    signer = the_authority().publisher
    made = install_artifacts(data, signer.sign(data), signer.certificate_pem, created=NOW)
    made.certificate.store(repository)
    made.signature.store(repository)
    return made.install.store(repository, tag="1.0.0")


def test_nobody_else_makes_what_was_fetched() -> None:
    repository = MemoryRepository()
    stored = put(repository)
    good = fetch(repository)
    assert good.verified == signed(DATA)
    assert good.descriptor == stored
    assert good.signature == the_authority().publisher.sign(DATA)
    assert good.certificate_pem == the_authority().publisher.certificate_pem
    with pytest.raises(OrderError, match="a Fetched is made by fetch_verified alone"):
        Fetched(good.verified, good.signature, good.certificate_pem, good.descriptor)
    with pytest.raises(OrderError):
        replace(good, signature=b"other")


def test_a_document_by_its_digest() -> None:
    repository = MemoryRepository()
    stored = put(repository)
    assert fetch(repository, str(stored.digest)).descriptor == stored


@pytest.mark.parametrize("more", [0, 1])
def test_how_large_a_document_may_be(more: int) -> None:
    signer = the_authority().publisher
    data = DATA + b" " * (MAX_INSTALL + more - len(DATA))
    arguments: dict[str, Any] = {"ca_pem": the_authority().pem, "at": NOW, "product": PRODUCT}
    if not more:
        assert (
            verify_install(data, signer.sign(data), signer.certificate_pem, **arguments).install
            == SEED
        )
        return
    with pytest.raises(DocumentError) as caught:
        verify_install(data, signer.sign(data), signer.certificate_pem, **arguments)
    assert caught.value.message == "install.json: is larger than 1048576 bytes"


# -- the artifact, before anything is verified


def artifact(repository: MemoryRepository, *blobs: bytes, **changes: object) -> Descriptor:
    layers = tuple(
        Descriptor(media_type=INSTALL, digest=Digest.of(blob), size=len(blob)) for blob in blobs
    )
    values: dict[str, Any] = {
        "media_type": MANIFEST,
        "artifact_type": INSTALL,
        "config": EMPTY_DESCRIPTOR,
        "layers": layers,
        **changes,
    }
    return Artifact(Manifest(**values), blobs).store(repository, tag="1.0.0")


def test_the_bytes_of_a_document() -> None:
    repository = MemoryRepository()
    stored = artifact(repository, b"any bytes")
    assert fetch_install(repository, "1.0.0") == (stored, b"any bytes")


def test_what_is_no_manifest_of_a_machine() -> None:
    repository = MemoryRepository()
    config = Descriptor(media_type=CONFIG, digest=EMPTY_DESCRIPTOR.digest, size=2)
    for changes, kind in (
        ({"artifact_type": "application/x"}, "application/x"),
        ({"artifact_type": "", "config": config}, CONFIG),
    ):
        artifact(repository, b"x", **changes)
        with pytest.raises(VerificationError) as caught:
            fetch_install(repository, "1.0.0")
        assert caught.value.message == (f"memory:1.0.0: is not a machine manifest but {kind!r}")
        assert caught.value.hint == "name what `mosb manifest publish` published, not an image"


@pytest.mark.parametrize("blobs", [(), (b"a", b"b")])
def test_a_document_is_one_layer(blobs: tuple[bytes, ...]) -> None:
    repository = MemoryRepository()
    artifact(repository, *blobs)
    with pytest.raises(VerificationError) as caught:
        fetch_install(repository, "1.0.0")
    assert caught.value.message == f"memory:1.0.0: has {len(blobs)} layers, not one"


def test_a_layer_that_is_too_large_is_not_read() -> None:
    repository = MemoryRepository()
    artifact(repository, b" " * (MAX_INSTALL + 1))
    with pytest.raises(DocumentError, match="at most 1048576 are read"):
        fetch_install(repository, "1.0.0")


class Serves(MemoryRepository):
    """A repository that gives one descriptor with other bytes, for whatever is asked."""

    given: tuple[Descriptor, bytes]

    def manifest(self, _reference: str) -> tuple[Descriptor, bytes]:
        return self.given


def test_bytes_have_the_digest_of_their_descriptor() -> None:
    repository = Serves()
    stored = artifact(repository, b"x")
    data = repository.blobs[stored.digest]
    repository.given = (stored, data + b" ")
    with pytest.raises(DigestError, match=r"memory:1\.0\.0: digest is"):
        fetch_install(repository, "1.0.0")


def test_the_digest_that_was_asked_for_is_the_one_that_comes() -> None:
    repository = Serves()
    stored = artifact(repository, b"x")
    repository.given = (stored, repository.blobs[stored.digest])
    asked = str(Digest.of(b"other"))
    with pytest.raises(VerificationError) as caught:
        fetch_install(repository, asked)
    assert caught.value.message == f"memory@{asked}: got {stored.digest}"
    assert fetch_install(repository, str(stored.digest))[0] == stored


# -- who signed


def test_a_document_without_signatures() -> None:
    repository = MemoryRepository()
    artifact(repository, DATA)
    with pytest.raises(SignatureError) as caught:
        fetch(repository)
    assert caught.value.message == "memory:1.0.0: is not signed"
    assert caught.value.hint == "publish it with `mosb manifest publish`, which signs it"


@pytest.mark.parametrize(("count", "more"), [(8, ""), (9, "\n  and 1 more reasons")])
def test_the_first_eight_reasons_are_told(count: int, more: str) -> None:
    repository = MemoryRepository()
    certificate = the_authority().publisher.certificate_pem
    made = install_artifacts(DATA, b"", certificate, created=NOW)
    made.certificate.store(repository)
    made.install.store(repository, tag="1.0.0")
    for size in range(1, count + 1):
        install_artifacts(DATA, b"x" * size, certificate, created=NOW).signature.store(repository)
    with pytest.raises(SignatureError) as caught:
        fetch(repository)
    lines = caught.value.message.split("\n")
    assert lines[0] == "memory:1.0.0: no certificate and signature verify"
    assert len([line for line in lines if line.startswith("  the signature has ")]) == 8
    assert caught.value.message.endswith(more or " has 256")


def test_a_reason_is_told_once_and_not_at_length() -> None:
    repository = MemoryRepository()
    certificate = the_authority().publisher.certificate_pem
    made = install_artifacts(DATA, b"", certificate, created=NOW)
    made.certificate.store(repository)
    made.install.store(repository, tag="1.0.0")
    for number in range(3):
        install_artifacts(DATA, b"%256d" % number, certificate, created=NOW).signature.store(
            repository
        )
    with pytest.raises(SignatureError) as caught:
        fetch(repository)
    assert caught.value.message.count("\n") == 1
