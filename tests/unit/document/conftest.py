"""A small world: two certificate authorities, publishers, images, a published manifest."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import msgspec
import pytest

from fakes import repository as fakes
from fakes.layers import AnyLayer, layer_content
from machineos.build.publish.plan import Defaults, Publishing, with_defaults
from machineos.build.publish.publish import Place, Published, Reporting, publish
from machineos.build.publish.source import parse_source
from machineos.core.digest import Checker, Digest
from machineos.core.word import RootHash
from machineos.document.model.install import Install, Target
from machineos.document.product.artifacts import install_artifacts, root_hash_artifact
from machineos.document.rules.images import layers_of
from machineos.document.verify.published import (
    Fetched,
    VerifiedInstall,
    fetch_verified,
    verify_install,
)
from machineos.errors import DocumentError, Fault, MissingError
from machineos.oci.graph.copy import copy_graph
from machineos.oci.layout.folder import LayoutRegistry, LayoutRepository
from machineos.oci.model.atomfs import NEW_ROOT_HASH, root_hash_annotations
from machineos.oci.model.documents import (
    CONFIG,
    MANIFEST,
    Descriptor,
    Index,
    Manifest,
    parse_document,
    parse_manifest,
)
from machineos.oci.model.reference import ImageSource
from machineos.trust.keys import x509 as issuing
from machineos.trust.keys.signer import FileSigner
from vectors import certificates

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PRODUCT = UUID("de6c82c5-2e01-4c92-949b-a6545d30fc06")
OTHER_PRODUCT = UUID("0b0f8dd4-37d6-4b15-8b9e-3f1d8a1c7a11")
SQUASHFS = "application/vnd.stacker.image.layer.squashfs+zstd+verity"

SOURCE = """\
version: 1
product: default
update_type: complete
targets:
  - service_name: zot
    source: "oci:{images}:zot"
    version: 1.0.0
    service_type: container
    nsgroup: "zot"
    network:
      type: simple
      ipv4: 10.0.3.99/24
      ports:
        - host: 80
          container: 5000
"""


@dataclass(frozen=True)
class Authority:
    """A manifest CA and the publishers that it vouches for."""

    pem: bytes
    publisher: FileSigner
    other: FileSigner
    expired: FileSigner


def _authority(label: str) -> Authority:
    profile = quick_ca()
    key = certificates.key(f"{label} CA")
    name = issuing.name("Manifest rootCA")
    ca = issuing.issue(
        profile, name, key.public_key(), issuer=None, issuer_key=key, now=NOW - timedelta(days=9000)
    )

    def publisher(product: UUID, when: datetime) -> FileSigner:
        leaf = certificates.key(f"{label} {product} {when}")
        subject = issuing.name(f"manifest PRODUCT:{product}")
        certificate = issuing.issue(
            issuing.PUBLISHER, subject, leaf.public_key(), issuer=ca, issuer_key=key, now=when
        )
        return FileSigner(certificate, leaf)

    return Authority(
        pem=issuing.certificate_pem(ca),
        publisher=publisher(PRODUCT, NOW),
        other=publisher(OTHER_PRODUCT, NOW),
        expired=publisher(PRODUCT, NOW - timedelta(days=8000)),
    )


def quick_ca() -> issuing.Profile:
    """A CA profile with a key that is quick to make."""
    return issuing.Profile(50, bits=2048, path_length=0, digital_signature=False)


@functools.cache
def the_authority() -> Authority:
    """The authority of the fixture, for what is made outside of a test."""
    return _authority("authority")


@functools.cache
def signed(data: bytes, product: UUID = PRODUCT) -> VerifiedInstall:
    """Return a document that a publisher of ``product`` signed, verified: there is no other way."""
    ours = the_authority()
    signer = ours.publisher if product == PRODUCT else ours.other
    return verify_install(
        data, signer.sign(data), signer.certificate_pem, ca_pem=ours.pem, at=NOW, product=product
    )


def fetched(data: bytes, product: UUID = PRODUCT) -> Fetched:
    """Return the same with what proves it, as it comes from a registry."""
    ours = the_authority()
    signer = ours.publisher if product == PRODUCT else ours.other
    made = install_artifacts(data, signer.sign(data), signer.certificate_pem, created=NOW)
    repository = fakes.MemoryRepository()
    for artifact in (made.certificate, made.signature):
        artifact.store(repository)
    made.install.store(repository, tag="1")
    return fetch_verified(repository, "1", ca_pem=ours.pem, at=NOW, product=product)


@pytest.fixture(scope="session")
def authority() -> Authority:
    return the_authority()


@pytest.fixture(scope="session")
def stranger() -> Authority:
    return _authority("stranger")


def put_image(
    repository: LayoutRepository,
    tag: str,
    *,
    contents: tuple[bytes, ...] | None = None,
    media_type: str = SQUASHFS,
    annotated: bool = True,
    created: str = "2025-05-05T05:05:05.123456789Z",
    version: str = "",
    run: Mapping[str, object] | None = None,
    raw: bool = False,
    architecture: str = "amd64",
) -> Descriptor:
    """Store an image whose layers only look like file systems: nothing here mounts them.

    ``run`` changes what its configuration says about running. ``raw`` takes the contents as they
    are; otherwise they are notes in layers that have the head of a file system.
    """
    labels = {"org.opencontainers.image.version": version} if version else None
    config = {
        "created": created,
        "architecture": architecture,
        "os": "linux",
        "config": {"Labels": labels, "Entrypoint": ["/run"], **(run or {})},
        "rootfs": {"type": "layers", "diff_ids": []},
    }
    config_bytes = msgspec.json.encode(config)
    layers = []
    count = layers_of(tag.partition("-")[0])
    usual = [tag.encode() * (1000 + number) for number in range(count)]
    for note in contents or usual:
        content = note if raw else layer_content(note)
        digest = Digest.of(content)
        root_hash = RootHash(Digest.of(b"root" + content).hex)
        notes = root_hash_annotations(root_hash) if annotated else {}
        layer = Descriptor(
            media_type=media_type, digest=digest, size=len(content), annotations=notes
        )
        repository.put_blob(layer, [content])
        layers.append(layer)
    config_descriptor = Descriptor(
        media_type=CONFIG, digest=Digest.of(config_bytes), size=len(config_bytes)
    )
    repository.put_blob(config_descriptor, [config_bytes])
    manifest = Manifest(media_type=MANIFEST, config=config_descriptor, layers=tuple(layers))
    return repository.put_manifest(manifest.to_bytes(), media_type=MANIFEST, tag=tag)


def open_layout(source: ImageSource) -> LayoutRepository:
    assert source.folder is not None
    return LayoutRepository(source.folder)


@dataclass(frozen=True)
class World:
    """Images in ``images``, a registry folder ``root``, and who signs."""

    images: Path
    root: Path
    authority: Authority

    @property
    def registry(self) -> LayoutRegistry:
        return LayoutRegistry(self.root, writable=True)

    @property
    def defaults(self) -> Defaults:
        return Defaults(
            hostfs=lambda: ImageSource.parse(f"oci:{self.images}:hostfs"),
            bootkit=lambda: ImageSource.parse(f"oci:{self.images}:bootkit"),
        )

    def source(self, text: str = SOURCE) -> str:
        return text.replace("{images}", str(self.images))

    def publish(self, text: str = SOURCE, **changes: object) -> Published:
        """Publish ``text``; ``changes`` are of the publishing, of its place, or who is told."""
        place: dict[str, Any] = {
            "registry": self.registry,
            "name": "machine/install",
            "tag": "1.0.0",
        }
        place |= {key: changes.pop(key) for key in list(changes) if key in place}
        say = cast("Callable[[str], None]", changes.pop("say", lambda _line: None))
        arguments: dict[str, Any] = {
            "signer": self.authority.publisher,
            "ca_pem": self.authority.pem,
            "at": NOW,
            "product": PRODUCT,
            "open_source": open_layout,
            "inspector": AnyLayer(),
            "defaults": self.defaults,
            **changes,
        }
        source = parse_source(self.source(text).encode())
        return publish(Publishing(source, **arguments), Place(**place), Reporting(say))

    def fetch(self) -> Fetched:
        """Return what is published as a machine does."""
        own = self.registry.repository("machine/install")
        return fetch_verified(own, "1.0.0", ca_pem=self.authority.pem, at=NOW, product=PRODUCT)

    def publish_carelessly(
        self, text: str = SOURCE, *, tag: str = "1.0.0", boots: bool = True
    ) -> Descriptor:
        """Publish as somebody does who signs whatever there is: what a machine has to refuse."""
        source = parse_source(self.source(text).encode())
        targets = []
        for wanted in with_defaults(source.targets, self.defaults if boots else None):
            found = open_layout(wanted.source).resolve(wanted.source.selector)
            self.sign_image(open_layout(wanted.source), found)
            targets.append(
                Target(
                    service_name=wanted.service_name,
                    version=wanted.version or "1",
                    service_type=wanted.service_type,
                    network=wanted.network,
                    nsgroup=wanted.nsgroup,
                    digest=str(found.digest),
                    size=found.size,
                    storage=wanted.storage,
                )
            )
        install = Install(
            version=1,
            product=source.product,
            targets=tuple(targets),
            update_type=source.update_type,
            storage=source.storage,
        )
        return self.sign(install.to_bytes(), tag=tag)

    def sign_image(self, source: LayoutRepository, image: Descriptor) -> None:
        """Put an image into the registry with a signature for whatever it names as root hash."""
        store = self.registry.repository("mos")
        copy_graph(source, store, str(image.digest), tag=image.digest.hex)
        manifest = parse_manifest(store.manifest(str(image.digest))[1], name="image")
        # Whatever is named: no rule is asked whether it is a root hash.
        signed = tuple(
            (layer.digest, named, self.authority.publisher.sign_root_hash(named))
            for layer in manifest.layers
            if (named := cast("RootHash", layer.annotations.get(NEW_ROOT_HASH)))
        )
        root_hash_artifact(image, signed).store(store)

    def sign(self, data: bytes, *, tag: str = "1.0.0") -> Descriptor:
        """Sign a document, whatever is in it, and put it into the registry."""
        signer = self.authority.publisher
        made = install_artifacts(data, signer.sign(data), signer.certificate_pem, created=NOW)
        own = self.registry.repository("machine/install")
        made.certificate.store(own)
        made.signature.store(own)
        return made.install.store(own, tag=tag)


class MemoryRepository:
    """An older repository in memory, which checks less than ``fakes.repository`` does."""

    name = "memory"

    def __init__(self) -> None:
        self._blobs: dict[Digest, bytes] = {}
        self._manifests: dict[Digest, Descriptor] = {}
        self._tags: dict[str, Digest] = {}

    def resolve(self, reference: str) -> Descriptor:
        digest = Digest.parse(reference) if ":" in reference else self._tags.get(reference)
        if digest not in self._manifests:
            raise MissingError(f"no {reference[:80]!r}")
        return self._manifests[digest]

    def manifest(self, reference: str) -> tuple[Descriptor, bytes]:
        descriptor = self.resolve(reference)
        return descriptor, self._blobs[descriptor.digest]

    def has_blob(self, digest: Digest) -> bool:
        return digest in self._blobs

    def blob(self, descriptor: Descriptor, *, limit: int) -> bytes:
        if descriptor.size > limit:
            raise DocumentError(str(descriptor.digest), [Fault("", 0, "is too large")])
        with self.open_blob(descriptor) as chunks:
            return b"".join(chunks)

    @contextmanager
    def open_blob(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        if descriptor.digest not in self._blobs:
            raise MissingError(f"no blob {descriptor.digest}")
        data = self._blobs[descriptor.digest]
        yield Checker(descriptor.digest, descriptor.size, "blob").through([data])

    def put_blob(self, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        checker = Checker(descriptor.digest, descriptor.size, "blob")
        self._blobs[descriptor.digest] = b"".join(checker.through(chunks))

    def put_manifest(self, data: bytes, *, media_type: str, tag: str | None = None) -> Descriptor:
        digest = Digest.of(data)
        self._blobs[digest] = data
        found = Descriptor(media_type=media_type, digest=digest, size=len(data))
        self._manifests[digest] = found
        if tag is not None:
            self._tags[tag] = digest
        return found

    def referrers(self, digest: Digest, *, artifact_type: str = "") -> tuple[Descriptor, ...]:
        found = []
        for entry in sorted(self._manifests.values(), key=lambda item: item.digest):
            document = _parsed(self._blobs[entry.digest], str(entry.digest))
            subject = getattr(document, "subject", None)
            kind = getattr(document, "artifact_type", "")
            if subject is not None and subject.digest == digest and artifact_type in {"", kind}:
                found.append(entry)
        return tuple(found)

    def tags(self) -> tuple[str, ...]:
        return tuple(sorted(self._tags))


@functools.cache
def _parsed(data: bytes, name: str) -> Manifest | Index:
    """Parse once what is asked for at every step of a test that is killed at every step."""
    return parse_document(data, name=name)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> World:
    """Images, and one manifest published from them; copied for every test that changes it."""
    folder = tmp_path_factory.mktemp("template")
    made = World(folder / "images", folder / "registry", authority)
    repository = LayoutRepository(made.images, writable=True)
    put_image(repository, "zot", contents=(b"zot",))
    put_image(repository, "two", contents=(b"zot base", b"zot top"))
    put_image(repository, "hostfs", version="v0.1.0", created="2025-06-06T06:06:06+02:00")
    put_image(repository, "bootkit")
    made.publish()
    return made


@pytest.fixture
def world(tmp_path: Path, template: World) -> World:
    """Images that nothing was published from yet."""
    made = World(tmp_path / "images", tmp_path / "registry", template.authority)
    shutil.copytree(template.images, made.images)
    return made


@pytest.fixture
def published_world(world: World, template: World) -> World:
    """The same, with the manifest published."""
    shutil.copytree(template.root, world.root)
    return world
