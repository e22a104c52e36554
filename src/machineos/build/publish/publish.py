"""Publishing: from ``manifest.yaml`` to images, root hash signatures and a signed document.

``prepare`` decides: it finds every image, checks what the author claims of it, converts tar images,
and computes and signs the document; nothing is written to the registry before all of that is done
and the result verifies against the CA. ``Plan.apply`` then writes: images and their root hash
signatures to the repository ``mos``, certificate and signature to the manifest's own, and last the
manifest with its tag. So a tag never names something incomplete or something no machine accepts.

Invariant: the same input gives the same bytes; publishing it again changes nothing. The time in the
artifacts is that of the newest image, or the one that the caller gives.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from machineos.build.publish.source import ImageTarget, Source
from machineos.core.jsondoc import parse_json
from machineos.document.product.artifacts import (
    CREATED,
    Artifact,
    InstallArtifacts,
    install_artifacts,
    root_hash_artifact,
)
from machineos.document.product.install import VERSION, Install, Network, Target
from machineos.document.verify.images import REPOSITORY, check_image
from machineos.document.verify.published import VerifiedInstall, verify_install
from machineos.errors import DigestError, MissingError, VerificationError
from machineos.oci.graph.copy import copy_graph, platform_name
from machineos.oci.model.atomfs import parse_layer_type, root_hash_of
from machineos.oci.model.documents import (
    CONFIG,
    DOCKER_CONFIG,
    Descriptor,
    Index,
    Manifest,
    parse_document,
    parse_manifest,
)
from machineos.oci.model.reference import ImageSource, check_tag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from uuid import UUID

    from machineos.oci.graph.copy import Progress
    from machineos.oci.model.repository import Registry, Repository
    from machineos.trust.keys.signer import Signer

BOOTKIT_VERSION = "1.0.0"
VERSION_LABEL = "org.opencontainers.image.version"
PLATFORM = "linux/amd64"
_MAX_CONFIG = 4 << 20
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Converter(Protocol):
    """Makes an image with tar layers into one with squashfs or EROFS layers under dm-verity."""

    def convert(self, repository: Repository, reference: str) -> tuple[Repository, Descriptor]:
        """Return the converted image and where it is; the same input gives the same digest.

        Raises: ArchiveError, ToolError, TransferError.
        """
        ...


@dataclass(frozen=True, slots=True)
class Defaults:
    """Where hostfs and bootkit are when the manifest does not name its own; asked only then."""

    hostfs: Callable[[], ImageSource]
    bootkit: Callable[[], ImageSource]


@dataclass(frozen=True, slots=True)
class Image:
    """The image of one target, ready to be copied, and the signatures of its layers."""

    target: Target
    repository: Repository
    descriptor: Descriptor
    created: datetime | None
    signatures: Artifact


@dataclass(frozen=True, slots=True)
class Published:
    """What was published."""

    repository: str
    tag: str
    descriptor: Descriptor
    verified: VerifiedInstall
    created: datetime


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that will be written, already signed and verified."""

    images: tuple[Image, ...]
    artifacts: InstallArtifacts
    verified: VerifiedInstall
    created: datetime

    def apply(
        self,
        registry: Registry,
        *,
        name: str,
        tag: str,
        say: Callable[[str], None],
        copying: Callable[[Progress], None] | None = None,
    ) -> Published:
        """Write it all; the tag moves last.

        Raises: TransferError, DigestError, SpaceError, DocumentError (name or tag).
        """
        check_tag(tag)
        own = registry.repository(name)
        store = registry.repository(REPOSITORY)
        for image in self.images:
            digest = image.descriptor.digest
            say(f"copy {image.target.service_name} to {store.name}:{digest.short}")
            copy_graph(image.repository, store, str(digest), tag=digest.hex, progress=copying)
            image.signatures.store(store)
        say(f"publish {own.name}:{tag}")
        self.artifacts.certificate.store(own)
        self.artifacts.signature.store(own)
        descriptor = self.artifacts.install.store(own, tag=tag)
        if descriptor.digest != self.artifacts.install.descriptor.digest:
            raise DigestError(f"{own.name}: stored the manifest as {descriptor.digest}")
        return Published(own.name, tag, descriptor, self.verified, self.created)


def publish(
    source: Source,
    *,
    registry: Registry,
    name: str,
    tag: str,
    signer: Signer,
    ca_pem: bytes,
    at: datetime,
    product: UUID | None,
    open_source: Callable[[ImageSource], Repository],
    converter: Converter | None,
    defaults: Defaults | None,
    created: datetime | None = None,
    say: Callable[[str], None] = lambda _line: None,
    copying: Callable[[Progress], None] | None = None,
) -> Published:
    """Publish ``source`` as ``name:tag``: ``prepare``, then ``Plan.apply``.

    Raises: whatever these two raise; after an error of ``prepare`` the registry is as it was.
    """
    check_tag(tag)
    registry.repository(name)
    plan = prepare(
        source,
        signer=signer,
        ca_pem=ca_pem,
        at=at,
        product=product,
        open_source=open_source,
        converter=converter,
        defaults=defaults,
        created=created,
        say=say,
    )
    return plan.apply(registry, name=name, tag=tag, say=say, copying=copying)


def prepare(
    source: Source,
    *,
    signer: Signer,
    ca_pem: bytes,
    at: datetime,
    product: UUID | None,
    open_source: Callable[[ImageSource], Repository],
    converter: Converter | None,
    defaults: Defaults | None,
    created: datetime | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> Plan:
    """Return all that publishing ``source`` will write.

    ``ca_pem``, ``at`` and ``product`` are what a machine will check the document with.
    ``defaults`` None leaves hostfs and bootkit out, for updates of services only. ``created`` is
    the time in the artifacts (default: that of the newest image).

    Raises: MissingError, TransferError, DigestError (an image is not what the author claims),
    DocumentError, VerificationError (an image that cannot be mounted under dm-verity),
    SignatureError and PolicyError (the signer is not one that the CA vouches for).
    """
    images = tuple(
        _Resolver(open_source, converter, signer, say).image(target)
        for target in with_defaults(source.targets, defaults)
    )
    install = Install(
        version=VERSION,
        product=source.product,
        targets=tuple(image.target for image in images),
        update_type=source.update_type,
        storage=source.storage,
    )
    say("sign the manifest")
    data = install.to_bytes()
    signature = signer.sign(data)
    verified = verify_install(
        data, signature, signer.certificate_pem, ca_pem=ca_pem, at=at, product=product
    )
    when = created or max((image.created or _EPOCH for image in images), default=_EPOCH)
    artifacts = install_artifacts(data, signature, signer.certificate_pem, created=when)
    return Plan(images, artifacts, verified, when)


def with_defaults(
    targets: tuple[ImageTarget, ...], defaults: Defaults | None
) -> tuple[ImageTarget, ...]:
    """Return ``targets`` with hostfs and bootkit added at the end where they are absent."""
    if defaults is None:
        return targets
    names = {target.service_name for target in targets}
    added = []
    if "hostfs" not in names:
        added.append(
            ImageTarget(
                service_name="hostfs",
                source=defaults.hostfs(),
                version="",
                service_type="hostfs",
                network=Network(type="host"),
            )
        )
    if "bootkit" not in names:
        added.append(
            ImageTarget(
                service_name="bootkit",
                source=defaults.bootkit(),
                version=BOOTKIT_VERSION,
                service_type="fs-only",
                network=Network(type="host"),
            )
        )
    return (*targets, *added)


class _Resolver:
    """Finds the images of targets."""

    def __init__(
        self,
        open_source: Callable[[ImageSource], Repository],
        converter: Converter | None,
        signer: Signer,
        say: Callable[[str], None],
    ) -> None:
        self._open = open_source
        self._converter = converter
        self._signer = signer
        self._say = say

    def image(self, wanted: ImageTarget) -> Image:
        """Return the image that the signed document will name. Raises: see ``prepare``."""
        what = f"target {wanted.service_name} ({wanted.source})"
        self._say(f"find {wanted.service_name} at {wanted.source}")
        repository = self._open(wanted.source)
        descriptor, data = repository.manifest(wanted.source.selector)
        _check_claims(wanted, descriptor, len(data), what)
        document = parse_document(data, name=what, media_type=descriptor.media_type)
        if isinstance(document, Index):
            descriptor, data = repository.manifest(str(_platform(document, what).digest))
            document = parse_manifest(data, name=what, media_type=descriptor.media_type)
        before = self._created(repository, document, what)
        if _has_tar_layers(document, what) or (len(document.layers) > 1 and self._converter):
            # Several layers under dm-verity are made one, too: a machine mounts one per image.
            repository, descriptor, document = self._converted(
                repository, descriptor, wanted.service_name, what
            )
        check_image(document, what)
        config = parse_json(
            repository.blob(document.config, limit=_MAX_CONFIG), name=f"configuration of {what}"
        )
        target = Target(
            service_name=wanted.service_name,
            version=wanted.version or _version(document, config, what),
            service_type=wanted.service_type,
            network=wanted.network,
            nsgroup=wanted.nsgroup,
            digest=str(descriptor.digest),
            size=descriptor.size,
            storage=wanted.storage,
        )
        signatures = root_hash_artifact(descriptor, tuple(self._signed(document.layers)))
        created = max((t for t in (before, _created(document, config)) if t), default=None)
        return Image(target, repository, descriptor, created, signatures)

    def _created(self, repository: Repository, document: Manifest, what: str) -> datetime | None:
        """Return when the image at the source was made: a conversion may not keep it."""
        if document.config.media_type not in {CONFIG, DOCKER_CONFIG}:
            return None
        data = repository.blob(document.config, limit=_MAX_CONFIG)
        return _created(document, parse_json(data, name=f"configuration of {what}"))

    def _converted(
        self, repository: Repository, descriptor: Descriptor, name: str, what: str
    ) -> tuple[Repository, Descriptor, Manifest]:
        if self._converter is None:
            raise VerificationError(
                f"{what}: has tar layers, which cannot be mounted under dm-verity",
                hint="convert it first: no converter is at hand here",
            )
        self._say(f"convert {name} to a layer under dm-verity")
        # By digest: a tag could have moved since it was looked up.
        repository, descriptor = self._converter.convert(repository, str(descriptor.digest))
        found, data = repository.manifest(str(descriptor.digest))
        manifest = parse_manifest(data, name=what, media_type=found.media_type)
        return repository, found, manifest

    def _signed(self, layers: tuple[Descriptor, ...]) -> Iterable[tuple[Any, str, bytes]]:
        for layer in layers:
            root_hash = root_hash_of(layer)
            yield layer.digest, root_hash, self._signer.sign_root_hash(root_hash)


def _check_claims(wanted: ImageTarget, found: Descriptor, size: int, what: str) -> None:
    hint = "the digest and size in manifest.yaml are those of the image manifest at the source"
    if wanted.digest and wanted.digest != str(found.digest):
        raise DigestError(f"{what}: is {found.digest}, not {wanted.digest}", hint=hint)
    if wanted.size is not None and wanted.size != size:
        raise DigestError(f"{what}: has {size} bytes, not {wanted.size}", hint=hint)


def _platform(index: Index, what: str) -> Descriptor:
    for entry in index.manifests:
        if platform_name(entry) == PLATFORM:
            return entry
    if len(index.manifests) == 1 and index.manifests[0].platform is None:
        return index.manifests[0]
    there = ", ".join(sorted({platform_name(entry) for entry in index.manifests}))
    raise MissingError(f"{what}: is not there for {PLATFORM}", hint=f"it is for: {there:.500}")


def _has_tar_layers(manifest: Manifest, what: str) -> bool:
    mountable = [parse_layer_type(layer.media_type) is not None for layer in manifest.layers]
    if any(mountable) and not all(mountable):
        raise VerificationError(f"{what}: mixes tar layers with squashfs or EROFS layers")
    return not any(mountable) and bool(manifest.layers)


def _version(manifest: Manifest, config: object, what: str) -> str:
    """Return the version that an image carries, for a target that nobody gave one."""
    inner = config.get("config") if isinstance(config, dict) else None
    labels = inner.get("Labels") if isinstance(inner, dict) else None
    for holder in (manifest.annotations, labels):
        value = holder.get(VERSION_LABEL) if isinstance(holder, dict) else None
        if isinstance(value, str) and value:
            return value
    raise MissingError(
        f"{what}: carries no version",
        hint=f"give the image the label {VERSION_LABEL}, or name this target in manifest.yaml",
    )


def _created(manifest: Manifest, config: object) -> datetime | None:
    """Return when an image says it was made, None if it does not say so readably."""
    own = config.get("created") if isinstance(config, dict) else None
    text = own if isinstance(own, str) else manifest.annotations.get(CREATED, "")
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    when = when.replace(tzinfo=UTC) if when.tzinfo is None else when
    try:
        return when.astimezone(UTC).replace(microsecond=0)
    except OverflowError:
        return None


__all__ = [
    "BOOTKIT_VERSION",
    "PLATFORM",
    "Converter",
    "Defaults",
    "Image",
    "Plan",
    "Published",
    "prepare",
    "publish",
    "with_defaults",
]
