"""Attacks on the way from a tag to a document that is acted on; each must be a clean refusal."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest

from fakes.repository import MemoryRepository
from machineos.core.digest import Digest
from machineos.core.run import run
from machineos.document.model.limits import MAX_INSTALL, MAX_REFERRERS, MAX_SMALL
from machineos.document.product import artifacts
from machineos.document.product.artifacts import (
    CERTIFICATE,
    INSTALL,
    SIGNATURE,
    InstallArtifacts,
    install_artifacts,
)
from machineos.document.verify.published import Fetched, fetch_verified, verify_install
from machineos.errors import (
    DigestError,
    DocumentError,
    MachineOSError,
    MissingError,
    PolicyError,
    SignatureError,
    TransferError,
    VerificationError,
)
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.documents import (
    EMPTY_DESCRIPTOR,
    MANIFEST,
    Descriptor,
    Manifest,
    parse_manifest,
)
from machineos.oci.model.repository import Repository
from machineos.trust.keys.signer import FileSigner
from machineos.trust.keys.x509 import key_pem
from unit.document.conftest import NOW, OTHER_PRODUCT, PRODUCT, Authority
from unit.document.product.test_install import SEED
from waiting import PATIENCE

DATA = SEED.to_bytes()


class Fetch(Protocol):
    """Fetch a manifest; ``changes`` are of the arguments of ``fetch_verified``."""

    def __call__(self, reference: str = "1.0.0", **changes: object) -> Fetched: ...


@pytest.fixture
def repository() -> MemoryRepository:
    return MemoryRepository()


@pytest.fixture
def layout(tmp_path: Path, authority: Authority) -> LayoutRepository:
    """A document published into a real layout, for what happens to files."""
    made = LayoutRepository(tmp_path / "layout", writable=True)
    put_signed(made, authority.publisher)
    return made


@pytest.fixture
def fetch(repository: MemoryRepository, authority: Authority) -> Fetch:
    def run(reference: str = "1.0.0", **changes: object) -> Fetched:
        arguments: dict[str, Any] = {
            "ca_pem": authority.pem,
            "at": NOW,
            "product": PRODUCT,
            **changes,
        }
        return fetch_verified(arguments.pop("repository", repository), reference, **arguments)

    return run


def put(
    repository: Repository, data: bytes, signature: bytes, certificate: bytes, *parts: str
) -> InstallArtifacts:
    """Store the three artifacts, or only those named."""
    made = install_artifacts(data, signature, certificate, created=NOW)
    if "certificate" in parts or not parts:
        made.certificate.store(repository)
    if "signature" in parts or not parts:
        made.signature.store(repository)
    if "install" in parts or not parts:
        made.install.store(repository, tag="1.0.0")
    return made


def put_signed(repository: Repository, signer: FileSigner, data: bytes = DATA) -> InstallArtifacts:
    return put(repository, data, signer.sign(data), signer.certificate_pem)


def referrer(
    subject: Descriptor | None, kind: str, *blobs: bytes, **changes: object
) -> tuple[Manifest, tuple[bytes, ...]]:
    layers = tuple(
        Descriptor(media_type=artifacts.LAYER_TAR, digest=Digest.of(blob), size=len(blob))
        for blob in blobs
    )
    values: dict[str, Any] = {
        "media_type": MANIFEST,
        "artifact_type": kind,
        "config": EMPTY_DESCRIPTOR,
        "layers": layers,
        "subject": subject,
        **changes,
    }
    return Manifest(**values), blobs


def put_referrer(
    repository: Repository, subject: Descriptor, kind: str, *blobs: bytes, **changes: object
) -> None:
    manifest, contents = referrer(subject, kind, *blobs, **changes)
    artifacts.Artifact(manifest, contents).store(repository)


# -- the pure decision


def test_a_signed_document(authority: Authority) -> None:
    signer = authority.publisher
    verified = verify_install(
        DATA,
        signer.sign(DATA),
        signer.certificate_pem,
        ca_pem=authority.pem,
        at=NOW,
        product=PRODUCT,
    )
    assert verified.install == SEED
    assert verified.data == DATA
    assert verified.sha256 == Digest.of(DATA).hex
    assert verified.publisher.product == PRODUCT


def test_the_signature_is_checked_before_the_document_is_looked_at(authority: Authority) -> None:
    signer = authority.publisher
    for data in (b"not json", b'{"version":2}', b""):
        with pytest.raises(SignatureError):
            verify_install(
                data,
                signer.sign(b"other"),
                signer.certificate_pem,
                ca_pem=authority.pem,
                at=NOW,
                product=PRODUCT,
            )
        with pytest.raises(DocumentError):
            verify_install(
                data,
                signer.sign(data),
                signer.certificate_pem,
                ca_pem=authority.pem,
                at=NOW,
                product=PRODUCT,
            )


def test_a_document_that_is_too_large_is_not_even_hashed(authority: Authority) -> None:
    with pytest.raises(DocumentError, match="larger"):
        verify_install(
            b" " * (MAX_INSTALL + 1), b"", b"", ca_pem=authority.pem, at=NOW, product=PRODUCT
        )


# -- fetched


def test_what_was_published(
    repository: MemoryRepository, fetch: Fetch, authority: Authority
) -> None:
    put_signed(repository, authority.publisher)
    fetched = fetch()
    assert fetched.verified.install == SEED
    assert fetched.certificate_pem == authority.publisher.certificate_pem
    assert fetched.signature == authority.publisher.sign(DATA)
    assert fetched.descriptor.digest == repository.resolve("1.0.0").digest


@pytest.mark.tool("openssl")
def test_a_hand_made_manifest_signed_with_openssl(
    repository: MemoryRepository, fetch: Fetch, authority: Authority, tmp_path: Path
) -> None:
    """The predecessor's first test: no program of ours made document, signature or artifacts."""
    data = (
        b'{"version":1,"product":"default","targets":[{"service_name":"hostfs","version":"1.0.0",'
        b'"service_type":"hostfs","network":{"type":"host"},"nsgroup":"",'
        b'"digest":"sha256:%b","size":500}],"update_type":"complete"}\n' % (b"ab" * 32)
    )
    key = tmp_path / "privkey.pem"
    key.write_bytes(key_pem(authority.publisher._key, None))
    signature = run(
        ["openssl", "dgst", "-sha256", "-sign", key], input=data, timeout=PATIENCE
    ).stdout
    put(repository, data, signature, authority.publisher.certificate_pem)
    assert [target.size for target in fetch().verified.install.targets] == [500]
    put(repository, data.replace(b"500", b"501"), signature, authority.publisher.certificate_pem)
    with pytest.raises(SignatureError):
        fetch()


def test_unsigned(repository: MemoryRepository, fetch: Fetch) -> None:
    put(repository, DATA, b"", b"", "install")
    with pytest.raises(SignatureError, match="not signed"):
        fetch()


@pytest.mark.parametrize("part", ["certificate", "signature"])
def test_half_signed(
    repository: MemoryRepository, fetch: Fetch, authority: Authority, part: str
) -> None:
    signer = authority.publisher
    put(repository, DATA, signer.sign(DATA), signer.certificate_pem, "install", part)
    with pytest.raises(SignatureError):
        fetch()


def test_a_signature_of_other_bytes(
    repository: MemoryRepository, fetch: Fetch, authority: Authority
) -> None:
    signer = authority.publisher
    put(repository, DATA, signer.sign(DATA + b" "), signer.certificate_pem)
    with pytest.raises(SignatureError, match="not one by"):
        fetch()


def test_only_the_first_reasons_are_told(
    repository: MemoryRepository, fetch: Fetch, authority: Authority
) -> None:
    made = put(repository, DATA, b"x", authority.publisher.certificate_pem)
    for size in range(2, 12):
        made = install_artifacts(
            DATA, b"x" * size, authority.publisher.certificate_pem, created=NOW
        )
        made.signature.store(repository)
    with pytest.raises(SignatureError, match=r"and 3 more reasons"):
        fetch()


def test_fooled_ya(repository: MemoryRepository, fetch: Fetch, authority: Authority) -> None:
    put(repository, DATA, b"fooled ya\n", authority.publisher.certificate_pem)
    with pytest.raises(SignatureError, match="10 bytes"):
        fetch()


def test_a_stranger(repository: MemoryRepository, fetch: Fetch, stranger: Authority) -> None:
    put_signed(repository, stranger.publisher)
    with pytest.raises(SignatureError, match="not issued by"):
        fetch()


def test_a_strangers_certificate_with_our_signature(
    repository: MemoryRepository, fetch: Fetch, authority: Authority, stranger: Authority
) -> None:
    put(repository, DATA, authority.publisher.sign(DATA), stranger.publisher.certificate_pem)
    with pytest.raises(SignatureError):
        fetch()


def test_the_ca_itself_may_not_sign(
    repository: MemoryRepository, fetch: Fetch, authority: Authority
) -> None:
    put(repository, DATA, authority.publisher.sign(DATA), authority.pem)
    with pytest.raises(SignatureError):
        fetch()


def test_expired(repository: MemoryRepository, fetch: Fetch, authority: Authority) -> None:
    put_signed(repository, authority.expired)
    with pytest.raises(SignatureError, match="expired"):
        fetch()
    # A machine whose clock cannot be trusted passes None, and says so by it.
    assert fetch(at=None).verified.install == SEED


def test_not_valid_yet(repository: MemoryRepository, fetch: Fetch, authority: Authority) -> None:
    put_signed(repository, authority.publisher)
    with pytest.raises(SignatureError, match="not valid before"):
        fetch(at=NOW - timedelta(days=400))


def test_another_product(repository: MemoryRepository, fetch: Fetch, authority: Authority) -> None:
    put_signed(repository, authority.other)
    with pytest.raises(PolicyError, match=str(OTHER_PRODUCT)):
        fetch()
    assert fetch(product=OTHER_PRODUCT).verified.install == SEED
    assert fetch(product=None).verified.publisher.product == OTHER_PRODUCT


def test_validly_signed_but_broken(
    repository: MemoryRepository, fetch: Fetch, authority: Authority
) -> None:
    put_signed(repository, authority.publisher, DATA.replace(b'"version":1,', b'"version":2,', 1))
    with pytest.raises(DocumentError, match="only 1 is known"):
        fetch()


def test_no_such_tag(repository: MemoryRepository, fetch: Fetch, authority: Authority) -> None:
    put_signed(repository, authority.publisher)
    with pytest.raises(MissingError):
        fetch("2.0.0")


# -- more referrers than there should be


def hostile(
    repository: Repository,
    subject: Descriptor,
    authority: Authority,
    stranger: Authority,
    count: int,
) -> None:
    """Store referrers that look right and are not, some before and some after the good ones."""
    for number in range(count):
        noise = b"noise %d" % number
        for kind in (CERTIFICATE, SIGNATURE):
            put_referrer(repository, subject, kind, noise)
    put_referrer(repository, subject, CERTIFICATE, stranger.publisher.certificate_pem)
    put_referrer(repository, subject, SIGNATURE, stranger.publisher.sign(DATA))
    put_referrer(repository, subject, CERTIFICATE, authority.other.certificate_pem)
    put_referrer(repository, subject, SIGNATURE, authority.other.sign(b"something else"))
    put_referrer(repository, subject, CERTIFICATE)
    put_referrer(repository, subject, SIGNATURE, b"one", b"two")
    put_referrer(repository, subject, CERTIFICATE, b"-" * (MAX_SMALL + 1))
    put_referrer(repository, subject, SIGNATURE, b"x" * 256)
    put_referrer(repository, subject, SIGNATURE, b"y", annotations={"a": "b" * (MAX_SMALL + 1)})


def test_hostile_referrers_do_not_matter_wherever_they_stand(
    repository: MemoryRepository, fetch: Fetch, authority: Authority, stranger: Authority
) -> None:
    made = put_signed(repository, authority.publisher)
    hostile(repository, made.install.descriptor, authority, stranger, 20)
    fetched = fetch()
    assert fetched.certificate_pem == authority.publisher.certificate_pem
    for kind in (CERTIFICATE, SIGNATURE):
        digests = [
            entry.digest
            for entry in repository.referrers(made.install.descriptor.digest, artifact_type=kind)
        ]
        assert len(digests) > 20


class Ordered:
    """The repository, with a chosen order of referrers: ``last`` at the end."""

    def __init__(self, inner: Repository, last: set[Digest]) -> None:
        self._inner = inner
        self._last = last
        self.manifests = 0
        self.bytes = 0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 (whatever the inner one has)
        return getattr(self._inner, name)

    def manifest(self, reference: str) -> tuple[Descriptor, bytes]:
        self.manifests += 1
        return self._inner.manifest(reference)

    def blob(self, descriptor: Descriptor, *, limit: int) -> bytes:
        self.bytes += descriptor.size
        return self._inner.blob(descriptor, limit=limit)

    def referrers(self, digest: Digest, *, artifact_type: str = "") -> tuple[Descriptor, ...]:
        found = self._inner.referrers(digest, artifact_type=artifact_type)
        return tuple(sorted(found, key=lambda entry: entry.digest in self._last))


def test_hostile_referrers_first_and_the_good_ones_last(
    repository: MemoryRepository, fetch: Fetch, authority: Authority, stranger: Authority
) -> None:
    made = put_signed(repository, authority.publisher)
    hostile(repository, made.install.descriptor, authority, stranger, 40)
    good = {Digest.of(made.certificate.data), Digest.of(made.signature.data)}
    assert fetch(repository=Ordered(repository, good)).verified.install == SEED


def test_several_good_pairs(
    repository: MemoryRepository, fetch: Fetch, authority: Authority
) -> None:
    made = put_signed(repository, authority.other)
    subject = made.install.descriptor
    put_referrer(repository, subject, CERTIFICATE, authority.publisher.certificate_pem)
    put_referrer(repository, subject, SIGNATURE, authority.publisher.sign(DATA))
    assert fetch().verified.publisher.product == PRODUCT
    assert fetch(product=OTHER_PRODUCT).verified.publisher.product == OTHER_PRODUCT


def test_what_is_looked_at_is_bounded(
    repository: MemoryRepository, fetch: Fetch, authority: Authority, stranger: Authority
) -> None:
    made = put(repository, DATA, b"s" * 256, stranger.publisher.certificate_pem)
    for number in range(MAX_REFERRERS + 20):
        put_referrer(repository, made.install.descriptor, SIGNATURE, b"%256d" % number)
    watched = Ordered(repository, set())
    with pytest.raises(SignatureError, match="21 more were not looked at") as caught:
        fetch(repository=watched)
    assert watched.manifests <= 1 + 1 + MAX_REFERRERS
    assert len(caught.value.message) < 4096


def test_the_same_blob_many_times_is_read_once(
    repository: MemoryRepository, fetch: Fetch, authority: Authority
) -> None:
    made = put(repository, DATA, b"bad", authority.publisher.certificate_pem)
    for number in range(30):
        put_referrer(
            repository, made.install.descriptor, SIGNATURE, b"bad", annotations={"n": str(number)}
        )
    watched = Ordered(repository, set())
    with pytest.raises(SignatureError):
        fetch(repository=watched)
    assert watched.bytes == len(DATA) + len(b"bad") + len(authority.publisher.certificate_pem)


def test_referrers_of_something_else_do_not_count(
    repository: MemoryRepository, fetch: Fetch, authority: Authority
) -> None:
    """A registry, or whoever writes the fallback tag, may list what it likes."""
    signer = authority.publisher
    made = put(repository, DATA, signer.sign(DATA), signer.certificate_pem, "install")
    other = Descriptor(media_type=MANIFEST, digest=Digest.of(b"other"), size=5)
    put_referrer(repository, other, CERTIFICATE, signer.certificate_pem)
    put_referrer(repository, other, SIGNATURE, signer.sign(DATA))

    class Lying(Ordered):
        def referrers(self, digest: Digest, *, artifact_type: str = "") -> tuple[Descriptor, ...]:
            return self._inner.referrers(other.digest, artifact_type=artifact_type)

    assert made.install.descriptor.digest != other.digest
    with pytest.raises(SignatureError, match="something else"):
        fetch(repository=Lying(repository, set()))


def test_a_broken_transfer_is_not_called_a_bad_signature(
    repository: MemoryRepository, fetch: Fetch, authority: Authority
) -> None:
    put_signed(repository, authority.publisher)

    class Broken(Ordered):
        def blob(self, descriptor: Descriptor, *, limit: int) -> bytes:
            if descriptor.size == 256:
                raise TransferError("connection reset", status=0)
            return self._inner.blob(descriptor, limit=limit)

    with pytest.raises(TransferError, match="connection reset"):
        fetch(repository=Broken(repository, set()))


def test_one_broken_referrer_does_not_stop_the_good_ones(
    repository: MemoryRepository, fetch: Fetch, authority: Authority
) -> None:
    made = put_signed(repository, authority.publisher)
    put_referrer(repository, made.install.descriptor, SIGNATURE, b"stalls")

    class Broken(Ordered):
        def blob(self, descriptor: Descriptor, *, limit: int) -> bytes:
            if descriptor.size == 6:
                raise TransferError("gateway timeout", status=504)
            return self._inner.blob(descriptor, limit=limit)

    good = {Digest.of(made.signature.data)}
    assert fetch(repository=Broken(repository, good)).verified.install == SEED


# -- the artifact itself


def put_install(repository: Repository, *blobs: bytes, **changes: object) -> None:
    manifest, contents = referrer(None, INSTALL, *blobs, **changes)
    artifacts.Artifact(manifest, contents).store(repository, tag="1.0.0")


def test_an_image_is_not_a_manifest(repository: MemoryRepository, fetch: Fetch) -> None:
    put_install(repository, DATA, artifact_type="")
    with pytest.raises(VerificationError, match="not a machine manifest"):
        fetch()


@pytest.mark.parametrize("blobs", [(), (DATA, DATA)])
def test_not_exactly_one_layer(
    repository: MemoryRepository, fetch: Fetch, blobs: tuple[bytes, ...]
) -> None:
    put_install(repository, *blobs)
    with pytest.raises(VerificationError, match="layers"):
        fetch()


def test_an_endless_document(repository: MemoryRepository, fetch: Fetch) -> None:
    put_install(repository, b" " * (MAX_INSTALL + 1))
    with pytest.raises(DocumentError):
        fetch()


def test_an_index_instead_of_a_manifest(repository: MemoryRepository, fetch: Fetch) -> None:
    kind = "application/vnd.oci.image.index.v1+json"
    data = msgspec.json.encode({"schemaVersion": 2, "mediaType": kind, "manifests": []})
    repository.put_manifest(data, media_type=kind, tag="1.0.0")
    with pytest.raises(DocumentError, match="index"):
        fetch()


class Serves:
    """A repository that serves these bytes for every reference, whatever they are."""

    name = "evil"

    def __init__(self, data: bytes, media_type: str = MANIFEST) -> None:
        self._found = Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data))
        self._data = data

    def manifest(self, _reference: str) -> tuple[Descriptor, bytes]:
        return self._found, self._data

    def blob(self, _descriptor: Descriptor, *, limit: int) -> bytes:
        return DATA[:limit]

    def referrers(self, _digest: Digest, *, artifact_type: str = "") -> tuple[Descriptor, ...]:
        return ()


GOOD = install_artifacts(DATA, b"", b"", created=NOW).install.data


@pytest.mark.parametrize(
    "data",
    [
        GOOD.replace(b'{"schemaVersion":2', b'{"manifests":[],"schemaVersion":2'),
        GOOD.replace(b'"artifactType"', b'"artifactType":"x","artifactType"'),
        GOOD.replace(b".manifest.v1+json", b".index.v1+json"),
        GOOD.replace(b'"schemaVersion":2', b'"schemaVersion":1'),
        GOOD.replace(b"sha256:", b"sha256:../../"),
        GOOD.replace(b"sha256:", b"SHA256:"),
        b"[" * 100000,
        b"",
    ],
)
def test_type_confusion_and_bad_digests(fetch: Fetch, data: bytes) -> None:
    with pytest.raises(MachineOSError) as caught:
        fetch(repository=Serves(data))
    assert isinstance(caught.value, (DocumentError, VerificationError))


def test_a_manifest_served_under_another_type(fetch: Fetch) -> None:
    with pytest.raises(DocumentError):
        fetch(repository=Serves(GOOD, "application/vnd.oci.image.index.v1+json"))


def test_another_manifest_than_the_digest_that_was_asked_for(fetch: Fetch) -> None:
    with pytest.raises(VerificationError, match=f"0000: got {Digest.of(GOOD)}"):
        fetch(f"sha256:{'0' * 64}", repository=Serves(GOOD))


class Swaps(Ordered):
    """Gives the bytes of one manifest under the descriptor of another."""

    def __init__(self, inner: Repository, swapped: dict[Digest, bytes]) -> None:
        super().__init__(inner, set())
        self._swapped = swapped

    def manifest(self, reference: str) -> tuple[Descriptor, bytes]:
        descriptor, data = self._inner.manifest(reference)
        return descriptor, self._swapped.get(descriptor.digest, data)


def test_other_bytes_under_the_right_descriptor(
    repository: MemoryRepository, fetch: Fetch, authority: Authority
) -> None:
    """Whatever a repository promises: bytes are compared with the digest that leads to them."""
    good = put_signed(repository, authority.publisher)
    other = put(repository, DATA.replace(b"zot", b"zat"), b"", b"", "install")
    swapped = {good.install.descriptor.digest: other.install.data}
    assert fetch(str(good.install.descriptor.digest)).verified.install == SEED
    with pytest.raises(DigestError):
        fetch(str(good.install.descriptor.digest), repository=Swaps(repository, swapped))


@pytest.mark.parametrize("part", ["certificate", "signature"])
def test_other_bytes_for_a_referrer(
    repository: MemoryRepository, fetch: Fetch, authority: Authority, part: str
) -> None:
    """The good pair is there, but not under the digest that the list of referrers says."""
    signer = authority.publisher
    good = put_signed(repository, signer)
    artifact = getattr(good, part)
    listed, _ = referrer(good.install.descriptor, artifact.manifest.artifact_type, b"bad")
    put_referrer(repository, good.install.descriptor, artifact.manifest.artifact_type, b"bad")

    class Only(Swaps):
        def referrers(self, digest: Digest, *, artifact_type: str = "") -> tuple[Descriptor, ...]:
            found = self._inner.referrers(digest, artifact_type=artifact_type)
            return tuple(one for one in found if one.digest != Digest.of(artifact.data))

    swapped = {Digest.of(listed.to_bytes()): artifact.data}
    with pytest.raises(SignatureError, match="digest is"):
        fetch(repository=Only(repository, swapped))


def test_a_referrer_listed_under_another_type(
    repository: MemoryRepository, fetch: Fetch, authority: Authority
) -> None:
    """A signature is no certificate, although the registry says so."""
    signer = authority.publisher
    made = put(repository, DATA, signer.sign(DATA), signer.certificate_pem, "install", "signature")
    put_referrer(repository, made.install.descriptor, "application/x-other", signer.certificate_pem)

    class Lying(Ordered):
        def referrers(self, digest: Digest, *, artifact_type: str = "") -> tuple[Descriptor, ...]:
            return self._inner.referrers(digest)

    with pytest.raises(SignatureError, match="is of type 'application/x-other'"):
        fetch(repository=Lying(repository, set()))


@pytest.mark.parametrize("reference", ["../../x", "sha256:../..", "sha256:" + "A" * 64, "a\0", ""])
def test_bad_references(
    repository: MemoryRepository, fetch: Fetch, authority: Authority, reference: str
) -> None:
    put_signed(repository, authority.publisher)
    with pytest.raises(MachineOSError):
        fetch(reference)


# -- a flipped bit anywhere


def test_a_flipped_bit_in_any_blob_of_the_layout(layout: LayoutRepository, fetch: Fetch) -> None:
    fetch(repository=layout)
    checked = 0
    for path in sorted((layout.path / "blobs" / "sha256").iterdir()):
        good = path.read_bytes()
        if good == b"{}":  # the empty configuration is part of nothing that is read
            continue
        for place in range(0, len(good), 37):
            bad = bytearray(good)
            bad[place] ^= 1 << (place % 8)
            path.write_bytes(bytes(bad))
            with pytest.raises((DigestError, SignatureError, DocumentError, MissingError)):
                fetch(repository=layout)
            checked += 1
        path.write_bytes(good)
    assert checked > 50
    fetch(repository=layout)


def test_a_truncated_or_missing_blob(layout: LayoutRepository, fetch: Fetch) -> None:
    for path in sorted((layout.path / "blobs" / "sha256").iterdir()):
        good = path.read_bytes()
        if good == b"{}":
            continue
        path.write_bytes(good[:-1])
        with pytest.raises(MachineOSError):
            fetch(repository=layout)
        path.unlink()
        with pytest.raises(MachineOSError):
            fetch(repository=layout)
        path.write_bytes(good)
    fetch(repository=layout)


def test_blobs_swapped_for_links_and_fifos(
    layout: LayoutRepository, fetch: Fetch, tmp_path: Path
) -> None:
    data = parse_manifest(layout.manifest("1.0.0")[1], name="install").layers[0].digest
    path = layout.blob_path(data)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MachineOSError):
        fetch(repository=layout)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(MachineOSError):
        fetch(repository=layout)
