"""Publishing: ``plan.prepare`` decides, then all of it is written, the tag last.

Images and their root hash signatures go to the repository ``mos``, certificate and signature to the
manifest's own, and last the manifest with its tag. So a tag never names something incomplete, or
something that breaks a rule which can be judged here (docs/rules.md says what cannot, yet).

Invariant: the same input gives the same bytes; publishing it again changes nothing.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from machineos.build.publish.cosigned import cosign
from machineos.build.publish.plan import prepare
from machineos.build.publish.source import parse_source
from machineos.core.files import read_named
from machineos.document.model.limits import MAX_SOURCE
from machineos.document.product.artifacts import CERTIFICATE, ROOT_HASH_SIGNATURE, SIGNATURE
from machineos.document.verify.images import REPOSITORY
from machineos.errors import AuthError, DigestError, MachineOSError, TransferError
from machineos.oci.graph.copy import WORKERS, copy_graph, holds
from machineos.oci.model.reference import check_tag

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from pathlib import Path

    from machineos.build.publish.cosigned import Cosigned
    from machineos.build.publish.plan import Image, Plan, Publishing
    from machineos.build.publish.source import Source
    from machineos.document.product.artifacts import Artifact
    from machineos.document.verify.published import VerifiedInstall
    from machineos.oci.graph.copy import Progress
    from machineos.oci.model.documents import Descriptor
    from machineos.oci.model.repository import Registry, Repository


@dataclass(frozen=True, slots=True)
class Place:
    """Where a manifest goes: ``name:tag`` in a registry. Raises when made: DocumentError."""

    registry: Registry
    name: str
    tag: str

    def __post_init__(self) -> None:
        check_tag(self.tag)
        self.registry.repository(self.name)


@dataclass(frozen=True, slots=True)
class Reporting:
    """Who is told how it goes on."""

    say: Callable[[str], None] = lambda _line: None
    copying: Callable[[Progress], None] | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """What was published."""

    repository: str
    tag: str
    descriptor: Descriptor
    verified: VerifiedInstall
    created: datetime


def load_source(path: Path) -> Source:
    """Return the ``manifest.yaml`` in a file. Raises: DocumentError, MissingError."""
    return parse_source(read_named(path, MAX_SOURCE), name=str(path))


@runtime_checkable
class Folder(Protocol):
    """A repository that is a folder here."""

    def require_place(self) -> None:
        """Raise ConflictError unless it can be written, or made."""
        ...


def look(place: Place) -> None:
    """Look whether anything can be written at a place, before there is any work to be lost.

    What a registry says about what it has counts for nothing yet, only that there is one.
    Raises: ConflictError, TransferError (nobody answers).
    """
    for name in (place.name, REPOSITORY):
        repository = place.registry.repository(name)
        if isinstance(repository, Folder):
            repository.require_place()
            continue
        try:
            repository.resolve(place.tag)
        except TransferError as error:
            if not error.status and not isinstance(error, AuthError):
                raise
        except MachineOSError:
            continue


def publish(publishing: Publishing, place: Place, reporting: Reporting | None = None) -> Published:
    """Publish: ``look``, ``prepare``, then ``write``.

    Raises: whatever these raise; after an error of ``prepare`` the registry is as it was.
    """
    reporting = reporting or Reporting()
    look(place)
    plan = prepare(publishing, reporting.say)
    cosigned = cosign(plan.artifacts.install.descriptor, publishing.signer, place.name)
    return write(plan, place, reporting, cosigned)


def write(plan: Plan, place: Place, reporting: Reporting, cosigned: Cosigned) -> Published:
    """Write all of a plan; the tag moves last. Raises: TransferError, DigestError, SpaceError."""
    own = place.registry.repository(place.name)
    store = place.registry.repository(REPOSITORY)
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="publish") as pool:
        there = list(pool.map(lambda image: _there(store, image), plan.images))
    for image, is_there in zip(plan.images, there, strict=True):
        digest = image.descriptor.digest
        if is_there:
            reporting.say(f"{image.target.service_name} is at {store.name}:{digest.short}")
            continue
        reporting.say(f"copy {image.target.service_name} to {store.name}:{digest.short}")
        copy_graph(image.repository, store, str(digest), tag=digest.hex, progress=reporting.copying)
        image.signatures.store(store)
    reporting.say(f"publish {own.name}:{place.tag}")
    beside = ((plan.artifacts.certificate, CERTIFICATE), (plan.artifacts.signature, SIGNATURE))
    for artifact, kind in beside:
        if not _refers(own, artifact, kind):
            artifact.store(own)
    cosigned.store(own)
    descriptor = plan.artifacts.install.store(own, tag=place.tag)
    if descriptor.digest != plan.artifacts.install.descriptor.digest:
        raise DigestError(f"{own.name}: stored the manifest as {descriptor.digest}")
    return Published(own.name, place.tag, descriptor, plan.verified, plan.created)


def _there(store: Repository, image: Image) -> bool:
    """Whether the image is there under its name with every blob, and our signatures of it: what
    lacks one of these, or cannot be asked about, is written as what is not there."""
    wanted = image.descriptor.digest
    try:
        if store.resolve(wanted.hex).digest != wanted:
            return False
        if not all(holds(store, blob) for blob in image.blobs):
            return False
    except MachineOSError:
        return False
    return _refers(store, image.signatures, ROOT_HASH_SIGNATURE)


def _refers(store: Repository, artifact: Artifact, kind: str) -> bool:
    """Whether an artifact is there, and listed with what it refers to: a list can name what a
    registry has thrown away since."""
    own, subject = artifact.descriptor.digest, artifact.manifest.subject
    assert subject is not None  # noqa: S101 (for the type checker)
    try:
        listed = store.referrers(subject.digest, artifact_type=kind)
        return own in {entry.digest for entry in listed} and store.resolve(str(own)).digest == own
    except MachineOSError:
        return False
