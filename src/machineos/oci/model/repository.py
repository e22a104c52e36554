"""What a layout folder and a registry have in common: repositories of blobs and manifests.

Both sides of every copy, and all of publish, verify and install, are written against these two
protocols; ``layout.py`` and ``registry.py`` implement them and pass one contract test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

    from machineos.core.digest import Digest
    from machineos.oci.model.documents import Descriptor


class Repository(Protocol):
    """One repository. All reads are bounded and checked against the descriptor's digest."""

    @property
    def name(self) -> str:
        """The name for messages: ``oci:DIR`` or ``host/path``."""
        ...

    def resolve(self, reference: str) -> Descriptor:
        """Return the descriptor of a tag or digest. Raises: MissingError, TransferError."""
        ...

    def manifest(self, reference: str) -> tuple[Descriptor, bytes]:
        """Return descriptor and bytes of a tag or digest: one read, so that a tag that moves
        between two requests cannot make them disagree. Raises: MissingError, VerificationError,
        TransferError."""
        ...

    def has_blob(self, digest: Digest) -> bool:
        """Whether the blob is there."""
        ...

    def blob(self, descriptor: Descriptor, *, limit: int) -> bytes:
        """Return a small blob whole. Raises: MissingError, DigestError, DocumentError (larger than
        ``limit``), TransferError."""
        ...

    def open_blob(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
        """Yield the chunks of a blob. The last chunk comes only after the digest of the whole
        matched. Raises while iterating: DigestError, TransferError."""
        ...

    def put_blob(self, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        """Store a blob; nothing is visible unless the bytes match the descriptor. A blob that is
        there already is not read from ``chunks``. Raises: DigestError, SpaceError,
        TransferError."""
        ...

    def put_manifest(self, data: bytes, *, media_type: str, tag: str | None = None) -> Descriptor:
        """Store a manifest (and its referrer entry, when it has a subject) and point ``tag`` to it.
        Storing what is there already changes nothing. Raises: SpaceError, TransferError."""
        ...

    def referrers(self, digest: Digest, *, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """Return the manifests whose subject is ``digest``, at most a bounded number, in an order
        that does not depend on when they came. Raises: TransferError."""
        ...

    def tags(self) -> tuple[str, ...]:
        """Return the tags of images, sorted: those of lists of referrers are none."""
        ...


@runtime_checkable
class Ranges(Protocol):
    """A repository of whose blobs any part is at hand without the rest."""

    def blob_range(self, descriptor: Descriptor, offset: int, size: int) -> bytes:
        """Return ``size`` bytes from ``offset`` on, fewer where the blob ends, checked against
        nothing: the digest is one of the whole. Raises: MissingError, DigestError (it is no file
        of the right size)."""
        ...


class Registry(Protocol):
    """Repositories by name: a registry host, or a folder with one layout per repository (the way
    zot stores them)."""

    @property
    def name(self) -> str:
        """The name for messages."""
        ...

    def repository(self, name: str) -> Repository:
        """Return the repository ``name`` (``machine/install``). Raises: DocumentError for a name
        that the distribution specification does not allow."""
        ...


class Below:
    """The part of a registry whose names begin with ``prefix``: what one owner has of it."""

    def __init__(self, registry: Registry, prefix: str) -> None:
        self._registry = registry
        self._prefix = prefix

    @property
    def name(self) -> str:
        """``host/prefix``."""
        return f"{self._registry.name}/{self._prefix}"

    def repository(self, name: str) -> Repository:
        """Return the repository ``prefix/name``. Raises: DocumentError."""
        return self._registry.repository(f"{self._prefix}/{name}")
