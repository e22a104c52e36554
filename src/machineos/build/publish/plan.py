"""Deciding what publishing a manifest will write: images found, checked, converted, all signed.

``prepare`` finds every image, checks what the author claims of it, has tar images converted, and
computes and signs the document. Everything that a machine would refuse is refused here, by the same
rules (``document.rules``), and the result verifies against the CA before anybody writes it.

Invariant: the same input gives the same plan. The time in the artifacts is that of the newest
image, or the one that the caller gives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

from machineos.build.foreign.signed import require_signed
from machineos.build.publish.lock import require_fit
from machineos.build.publish.source import ImageTarget
from machineos.build.publish.together import each
from machineos.build.recipe.use import Container, Use
from machineos.core.jsondoc import parse_json
from machineos.document.model.hardware import HARDWARE_LABEL
from machineos.document.model.image import MACHINE
from machineos.document.model.install import VERSION, Install, Mount, Network, Target
from machineos.document.model.limits import MAX_CONFIG
from machineos.document.product.artifacts import (
    CREATED,
    install_artifacts,
    root_hash_artifact,
)
from machineos.document.product.image import check_image_config, parse_image_config
from machineos.document.rules import images, publisher
from machineos.document.rules.product import BOOTS, NEEDED
from machineos.document.rules.storage import FOLDERS
from machineos.document.rules.subject import declared
from machineos.document.verify.layers import require_mountable
from machineos.document.verify.published import verify_install
from machineos.errors import (
    ArchiveError,
    ConflictError,
    DigestError,
    MachineOSError,
    MissingError,
)
from machineos.oci.graph.platform import choose
from machineos.oci.model.atomfs import root_hash_of
from machineos.oci.model.documents import (
    CONFIG,
    DOCKER_CONFIG,
    Descriptor,
    Index,
    Manifest,
    parse_document,
    parse_manifest,
)
from machineos.oci.model.documents import VERSION_LABEL as VERSION_LABEL
from machineos.trust.cosign.bundle import MAX_BUNDLE
from machineos.trust.cosign.key import parse_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from uuid import UUID

    from machineos.build.publish.lock import Lock
    from machineos.build.publish.source import Source
    from machineos.build.recipe.use import Inspects
    from machineos.core.digest import Digest
    from machineos.core.word import RootHash
    from machineos.document.model.hardware import Hardware
    from machineos.document.product.artifacts import Artifact, InstallArtifacts
    from machineos.document.verify.published import VerifiedInstall
    from machineos.oci.model.reference import ImageSource
    from machineos.oci.model.repository import Repository
    from machineos.trust.keys.signer import Signer

BOOTKIT_VERSION = "1.0.0"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Converter(Protocol):
    """Makes an image with tar layers into one with squashfs or EROFS layers under dm-verity."""

    def convert(
        self, repository: Repository, reference: str, mounts: tuple[Mount, ...] | None
    ) -> tuple[Repository, Descriptor]:
        """Return the converted image and where it is; the same input gives the same digest.

        ``mounts`` is what a container of it will have mounted, None for an image that is not run.
        Raises: ArchiveError (there is no folder for one of them, ...), ToolError, TransferError.
        """
        ...


@dataclass(frozen=True, slots=True)
class Defaults:
    """Where hostfs and bootkit are when the manifest does not name its own; asked only then."""

    hostfs: Callable[[], ImageSource]
    bootkit: Callable[[], ImageSource]


@dataclass(frozen=True, slots=True)
class Publishing:
    """What to publish, and for whom.

    ``ca_pem``, ``at`` and ``product`` are what a machine will check the document with.
    ``defaults`` None leaves hostfs and bootkit out, for updates of services only. ``created`` is
    the time in the artifacts, None for that of the newest image. With a ``lock`` each image is the
    one that it has, whatever its source has come to mean. ``read_beside`` returns the content of a
    file that the manifest names, at most so many bytes.
    """

    source: Source
    signer: Signer
    ca_pem: bytes
    at: datetime
    product: UUID | None
    open_source: Callable[[ImageSource], Repository]
    inspector: Inspects
    converter: Converter | None = None
    defaults: Defaults | None = None
    created: datetime | None = None
    lock: Lock | None = None
    read_beside: Callable[[str, int], bytes] | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """The image of one target, ready to be copied, and the signature of its layer. ``blobs`` are
    all that its manifest names."""

    target: Target
    repository: Repository
    descriptor: Descriptor
    blobs: tuple[Descriptor, ...]
    created: datetime | None
    signatures: Artifact


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that will be written, already signed and verified."""

    images: tuple[Image, ...]
    artifacts: InstallArtifacts
    verified: VerifiedInstall
    created: datetime


def prepare(publishing: Publishing, say: Callable[[str], None] = lambda _line: None) -> Plan:
    """Return all that publishing will write.

    Raises: MissingError, TransferError, DigestError (an image is not what the author claims),
    DocumentError, VerificationError (an image that cannot be mounted under dm-verity),
    ConflictError (a bootkit for other hardware), SignatureError and PolicyError (the signer is not
    one that the CA vouches for; a complete manifest without what boots).
    """
    source, signer = publishing.source, publishing.signer
    resolver = _Resolver(publishing, say)
    targets = with_defaults(source.targets, publishing.defaults)
    if publishing.lock is not None:
        require_fit(publishing.lock, targets, name="manifest.lock")
    sources = each(resolver.find, targets)
    found = each(resolver.image, sources)
    install = Install(
        version=VERSION,
        product=source.product,
        targets=tuple(image.target for image in found),
        update_type=source.update_type,
        storage=source.storage,
    )
    BOOTS.require(declared(install), "the manifest")
    say("sign the manifest")
    data = install.to_bytes()
    signature = signer.sign(data)
    verified = verify_install(
        data,
        signature,
        signer.certificate_pem,
        ca_pem=publishing.ca_pem,
        at=publishing.at,
        product=publishing.product,
    )
    times = (image.created or _EPOCH for image in found)
    when = publishing.created or max(times, default=_EPOCH)
    artifacts = install_artifacts(data, signature, signer.certificate_pem, created=when)
    return Plan(found, artifacts, verified, when)


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
                lock_name="keyset:hostfs",
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
                lock_name="keyset:bootkit",
                version=BOOTKIT_VERSION,
                service_type="fs-only",
                network=Network(type="host"),
            )
        )
    return (*targets, *added)


@dataclass(frozen=True, slots=True)
class _Found:
    """An image; ``before`` is when the one at the source was made, ``converted`` whether it has to
    be, or was, converted, ``body`` the configuration of one that was judged, else None."""

    wanted: ImageTarget
    what: str
    repository: Repository
    descriptor: Descriptor
    document: Manifest
    before: datetime | None
    converted: bool
    body: object = None


class _Resolver:
    """Finds the images of targets."""

    def __init__(self, publishing: Publishing, say: Callable[[str], None]) -> None:
        self._open = publishing.open_source
        self._converter = publishing.converter
        self._inspector = publishing.inspector
        self._signer = publishing.signer
        self._hardware = publishing.source.hardware
        self._lock = publishing.lock
        self._say = say
        self._read_beside = publishing.read_beside
        self._configs: dict[Digest, bytes] = {}

    def find(self, wanted: ImageTarget) -> _Found:
        """Return the image that is at the source of a target, judged by its documents.

        Raises: see ``prepare``.
        """
        what = f"target {wanted.service_name} ({wanted.source})"
        self._say(f"find {wanted.service_name} at {wanted.source}")
        repository = self._open(wanted.source)
        descriptor, data = self._manifest(repository, wanted, what)
        _check_claims(wanted, descriptor, len(data), what)
        root = descriptor.digest
        document = parse_document(data, name=what, media_type=descriptor.media_type)
        if isinstance(document, Index):
            descriptor, data = _exactly(repository, choose(document, MACHINE, what).digest, what)
            document = parse_manifest(data, name=what, media_type=descriptor.media_type)
        self._require_signed(wanted, repository, (root, descriptor.digest), what)
        before = self._created(repository, document, what)
        converted = self._needs_conversion(document, what, wanted.service_name)
        found = _Found(wanted, what, repository, descriptor, document, before, converted)
        if wanted.service_name == "bootkit" and self._hardware is not None:
            _check_hardware(self._hardware, document, what)
        if not converted:
            return replace(found, body=self._judged(found))
        if document.config.media_type in {CONFIG, DOCKER_CONFIG}:
            self._config(found)  # before it takes the time of a conversion
        return found

    def image(self, found: _Found) -> Image:
        """Return the image that the signed document will name. Raises: see ``prepare``."""
        ready = self._ready(found)
        wanted, document = ready.wanted, ready.document
        body = ready.body or self._judged(ready)
        target = Target(
            service_name=wanted.service_name,
            version=wanted.version or _version(document, body, ready.what),
            service_type=wanted.service_type,
            network=wanted.network,
            nsgroup=wanted.nsgroup,
            digest=str(ready.descriptor.digest),
            size=ready.descriptor.size,
            storage=wanted.storage,
        )
        signatures = root_hash_artifact(ready.descriptor, tuple(self._signed(document.layers)))
        created = max((t for t in (ready.before, _created(document, body)) if t), default=None)
        blobs = (document.config, *document.layers)
        return Image(target, ready.repository, ready.descriptor, blobs, created, signatures)

    def _ready(self, found: _Found) -> _Found:
        """Return the image as it can be mounted, converted where it cannot be as it is."""
        wanted, manifest = found.wanted, found.document
        if found.converted or (self._converter is not None and self._is_foreign(found)):
            return self._convert(found)
        user = None
        if wanted.service_type == "container":
            config = self._blob(found.repository, manifest.config)
            user = parse_image_config(config, name=f"configuration of {found.what}").user
        container = None if user is None else Container(wanted.storage, user)
        use = Use(wanted.service_name, found.what, container)
        try:
            self._inspector.inspect(found.repository, manifest, use)
        except ArchiveError as error:
            if error.rule != FOLDERS.name or self._converter is None:
                raise
            return self._convert(found)  # which makes the folders that every container needs
        return found

    def _is_foreign(self, found: _Found) -> bool:
        """Whether somebody else packed what a machine's kernel would parse; root and boot files
        are the product's own. Where there is a lock it says so, the same on every machine."""
        locked = None if self._lock is None else self._lock.image_of(found.wanted)
        if found.wanted.service_name in NEEDED:
            return False
        ours = self._inspector.packed(found.document)
        if locked is not None and locked.packed and not ours:
            name = found.wanted.service_name
            self._say(f"take {name} as it is: manifest.lock says that who wrote it packed it")
        return not (ours if locked is None else locked.packed)

    def _convert(self, found: _Found) -> _Found:
        wanted = found.wanted
        assert self._converter is not None  # noqa: S101 (for the type checker: a rule asked for it)
        self._say(f"convert {wanted.service_name} to a layer under dm-verity")
        mounts = wanted.storage if wanted.service_type == "container" else None
        # By digest: a tag could have moved since it was looked up.
        repository, made = self._converter.convert(
            found.repository, str(found.descriptor.digest), mounts
        )
        descriptor, data = repository.manifest(str(made.digest))
        document = parse_manifest(data, name=found.what, media_type=descriptor.media_type)
        return replace(
            found, repository=repository, descriptor=descriptor, document=document,
            converted=True, body=None,
        )  # fmt: skip

    def _judged(self, found: _Found) -> object:
        """Return the configuration of an image that a machine mounts, by all that is cheap to see.

        Of what was converted here the tree is one that we made; in a registry it is too far away.
        """
        wanted, document, what = found.wanted, found.document, found.what
        images.check_image(document, what, wanted.service_name)
        near = wanted.source.reference is None and not found.converted
        require_mountable(found.repository, document, what, tree=near)
        return self._config(found)

    def _config(self, found: _Found) -> object:
        """Return the configuration of an image that a machine can use."""
        wanted, document, what = found.wanted, found.document, found.what
        images.CONFIG_SIZE.require(document, what)
        config = self._blob(found.repository, document.config)
        name = f"configuration of {what}"
        if wanted.service_type == "container":
            parse_image_config(config, name=name)
        else:
            check_image_config(config, name=name)
        return parse_json(config, name=name)

    def _manifest(
        self, repository: Repository, wanted: ImageTarget, what: str
    ) -> tuple[Descriptor, bytes]:
        """Return what the source names; where there is a lock, what it has: no tag is asked for."""
        locked = None if self._lock is None else self._lock.digest_of(wanted)
        if locked is None:
            try:
                return repository.manifest(wanted.source.selector)
            except MachineOSError as error:
                raise error.about(what) from error
        try:
            return _exactly(repository, locked, what)
        except MissingError as error:
            raise MissingError(
                f"{what}: the image that manifest.lock has is not there: {error.message}",
                hint="mosb manifest lock takes the one that is there now",
            ) from error

    def _require_signed(
        self, wanted: ImageTarget, repository: Repository, digests: tuple[Digest, ...], what: str
    ) -> None:
        """Refuse an image that the key of ``signed-by`` has not signed, if there is one: the index,
        or the manifest that was chosen from it. Raises: SignatureError, MissingError,
        TransferError."""
        signed_by = wanted.signed_by
        if signed_by is None:
            return
        self._say(f"check that {signed_by.key} has signed {what}")
        key = parse_key(self._read(signed_by.key), name=signed_by.key)
        bundle = self._read(signed_by.bundle) if signed_by.bundle else None
        kept = wanted.source.keeps_manifest
        require_signed(repository, digests, key, bundle=bundle, what=what, kept=kept)

    def _read(self, name: str) -> bytes:
        if self._read_beside is None:
            raise MissingError(f"{name} cannot be read here: the manifest is in no folder")
        return self._read_beside(name, MAX_BUNDLE)

    def _created(self, repository: Repository, document: Manifest, what: str) -> datetime | None:
        """Return when the image at the source was made: a conversion may not keep it."""
        if document.config.media_type not in {CONFIG, DOCKER_CONFIG}:
            return None
        images.CONFIG_SIZE.require(document, what)
        data = self._blob(repository, document.config)
        return _created(document, parse_json(data, name=f"configuration of {what}"))

    def _blob(self, repository: Repository, config: Descriptor) -> bytes:
        """Return a configuration, asked for once."""
        if config.digest not in self._configs:
            self._configs[config.digest] = repository.blob(config, limit=MAX_CONFIG)
        return self._configs[config.digest]

    def _needs_conversion(self, document: Manifest, what: str, service: str) -> bool:
        """Whether the image has to be converted. Raises: VerificationError (nobody can)."""
        source = publisher.Source(document, convertible=self._converter is not None)
        for rule in publisher.SOURCES:
            rule.require(source, what)
        # Several layers under dm-verity are made one, too, where that can be done.
        several = len(document.layers) > images.layers_of(service) and source.convertible
        return publisher.has_tar_layers(document) or several

    def _signed(self, layers: tuple[Descriptor, ...]) -> Iterable[tuple[Digest, RootHash, bytes]]:
        for layer in layers:
            root_hash = root_hash_of(layer)
            yield layer.digest, root_hash, self._signer.sign_root_hash(root_hash)


def _exactly(repository: Repository, digest: Digest, what: str) -> tuple[Descriptor, bytes]:
    """Return the manifest with that digest, on which a signature or a lock relies.

    Raises: what the repository raises; DigestError (it answers with another one).
    """
    descriptor, data = repository.manifest(str(digest))
    if descriptor.digest != digest:
        raise DigestError(
            f"{what}: asked for {digest}, {repository.name} gives {descriptor.digest}"
        )
    return descriptor, data


def _check_hardware(wanted: Hardware, document: Manifest, what: str) -> None:
    """Refuse a bootkit that was built for something else; one of an older builder does not say."""
    built = document.annotations.get(HARDWARE_LABEL, wanted.label)
    if built != wanted.label:
        raise ConflictError(
            f"{what} was built for other hardware than the manifest says: {built!r}, not "
            f"{wanted.label!r}",
            hint="mosb bootkit build --manifest FILE builds it for what the manifest says",
        )


def _check_claims(wanted: ImageTarget, found: Descriptor, size: int, what: str) -> None:
    claimed = publisher.Claimed(wanted.digest, wanted.size, found.digest, size)
    for rule in publisher.CLAIMS:
        rule.require(claimed, what)


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
