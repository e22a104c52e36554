"""``signed-by`` of a target: how it is written, and that nothing is done before it is satisfied."""

from __future__ import annotations

import pytest

from fakes.repository import MemoryRepository
from machineos.build.publish.plan import prepare
from machineos.build.publish.source import ImageTarget, SignedBy, parse_source
from machineos.errors import DocumentError, MissingError, SignatureError
from machineos.oci.model.documents import INDEX, MANIFEST, Descriptor, Index
from machineos.oci.model.reference import ImageSource
from unit.build.publish.test_plan import publishing, wanted
from vectors.cosign import BUNDLE_FILE, DIGEST, IMAGE, KEYS, put_signed

TEXT = """\
version: 1
product: p
targets:
- service_name: a
  source: docker://r.example/a:1
  version: "1"
  service_type: container
"""
FILES = {"k.pub": KEYS["p256"], "other.pub": KEYS["rsa"], "b.json": BUNDLE_FILE}


def read(name: str, limit: int) -> bytes:
    if name not in FILES:
        raise MissingError(f"{name} does not exist")
    assert limit >= len(FILES[name])
    return FILES[name]


def signed_by(text: str) -> SignedBy | None:
    (target,) = parse_source(f"{TEXT}  {text}\n".encode()).targets
    return target.signed_by


def test_how_it_is_written() -> None:
    assert parse_source(TEXT.encode()).targets[0].signed_by is None
    assert signed_by("signed-by: keys/k.pub") == SignedBy("keys/k.pub")
    assert signed_by("signed-by: {key: k.pub}") == SignedBy("k.pub")
    assert signed_by("signed-by: {key: k.pub, bundle: b.json}") == SignedBy("k.pub", "b.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("signed-by:", "is not the name of a file"),
        ("signed-by: ''", "is not the name of a file"),
        ("signed-by: {}", "signed-by.key: is missing"),
        ("signed-by: {key: }", "is not the name of a file"),
        ("signed-by: {key: k, bundle: ''}", "is not the name of a file"),
        ("signed-by: {key: k, identity: me}", "is not a known key"),
        ("signed-by: [k.pub]", "must be a single value"),
        ("signed_by: k.pub", "is not a known key"),
    ],
)
def test_nothing_said_is_a_fault_not_an_unsigned_image(text: str, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        signed_by(text)


def target(*, key: str = "k.pub", bundle: str = "") -> ImageTarget:
    return wanted("a", signed_by=SignedBy(key, bundle))


class Converting:
    """A converter that is asked for once the signature is there."""

    def convert(self, *_: object) -> tuple[MemoryRepository, Descriptor]:
        raise NotImplementedError("asked to convert")


def prepared(repository: MemoryRepository, wish: ImageTarget) -> None:
    prepare(publishing(repository, wish, converter=Converting(), read_beside=read))


@pytest.mark.parametrize("kind", ["p256 tag", "p256 referrer", "p256 bundle"])
def test_a_signed_image_is_converted(kind: str) -> None:
    repository = MemoryRepository()
    put_signed(repository, kind, tag="a")
    with pytest.raises(NotImplementedError, match="asked to convert"):
        prepared(repository, target())


def test_the_signature_of_one_image_of_an_index_counts() -> None:
    repository = MemoryRepository()
    put_signed(repository, "p256 tag")
    entry = Descriptor(
        media_type=MANIFEST,
        digest=DIGEST,
        size=len(IMAGE),
        platform={"os": "linux", "architecture": "amd64"},
    )
    index = Index(media_type=INDEX, manifests=(entry,))
    repository.put_manifest(index.to_bytes(), media_type=INDEX, tag="a")
    with pytest.raises(NotImplementedError, match="asked to convert"):
        prepared(repository, target())


def test_a_bundle_beside_the_manifest() -> None:
    repository = MemoryRepository()
    put_signed(repository, tag="a")
    with pytest.raises(NotImplementedError, match="asked to convert"):
        prepared(repository, target(bundle="b.json"))
    with pytest.raises(SignatureError, match=r"target a .*: is not signed by k"):
        prepared(repository, target())


@pytest.mark.parametrize("way", ["docker-archive:a.tar", "docker-daemon:a:1", "oci-archive:a.tar"])
def test_dockers_form_has_lost_what_was_signed(way: str) -> None:
    repository = MemoryRepository()
    put_signed(repository, tag="a")
    source = ImageSource.parse(way)

    class Called(MemoryRepository):
        def manifest(self, reference: str) -> tuple[Descriptor, bytes]:
            return repository.manifest("a")

    with pytest.raises(SignatureError) as caught:
        prepared(Called(), wanted("a", source=source, signed_by=SignedBy("k.pub")))
    assert ("has lost the manifest" in caught.value.hint) == (source.way != "oci-archive")


def test_what_is_refused_before_anything_is_converted() -> None:
    repository = MemoryRepository()
    put_signed(repository, "p256 tag", tag="a")
    with pytest.raises(SignatureError, match="is not signed by other"):
        prepared(repository, target(key="other.pub"))
    with pytest.raises(MissingError, match=r"gone\.pub does not exist"):
        prepared(repository, target(key="gone.pub"))
    with pytest.raises(SignatureError, match=r"b\.json is no public key"):
        prepared(repository, target(key="b.json"))
    with pytest.raises(MissingError, match="cannot be read here"):
        prepare(publishing(repository, target()))
