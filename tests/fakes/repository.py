"""A registry in memory: blobs, manifests and tags in dictionaries, with the checks of a real one.

It passes the contract test of ``Repository`` (tests/unit/oci/model/test_repository.py). What a test
wants to damage it changes in ``blobs``; ``asked`` remembers what was read, in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from machineos.core.digest import Checker, Digest
from machineos.errors import DigestError, DocumentError, Fault, MachineOSError, MissingError
from machineos.oci.model.documents import MAX_MANIFEST, Descriptor, Manifest, parse_document
from machineos.oci.model.reference import check_name, check_tag


@dataclass
class MemoryRepository:
    """One repository."""

    name: str = "memory"
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    types: dict[Digest, str] = field(default_factory=dict)
    named: dict[str, Digest] = field(default_factory=dict)
    asked: list[Digest] = field(default_factory=list)

    def resolve(self, reference: str) -> Descriptor:
        """Return the descriptor of a tag or digest."""
        return self.manifest(reference)[0]

    def manifest(self, reference: str) -> tuple[Descriptor, bytes]:
        """Return descriptor and bytes of a tag or digest."""
        if ":" in reference:
            digest = Digest.parse(reference)
        else:
            found = self.named.get(check_tag(reference))
            if found is None:
                raise MissingError(f"{self.name}: no tag {reference}")
            digest = found
        if digest not in self.types or digest not in self.blobs:
            raise MissingError(f"{self.name}: no manifest {digest}")
        self.asked.append(digest)
        data = self.blobs[digest]
        digest.check(data, f"{self.name}@{digest}")
        parse_document(data, name=f"{self.name}@{digest}", media_type=self.types[digest])
        return Descriptor(media_type=self.types[digest], digest=digest, size=len(data)), data

    def has_blob(self, digest: Digest) -> bool:
        """Whether the blob is there."""
        return digest in self.blobs

    def blob(self, descriptor: Descriptor, *, limit: int) -> bytes:
        """Return a small blob whole."""
        if descriptor.size > limit:
            message = f"has {descriptor.size} bytes, at most {limit} are read"
            raise DocumentError(str(descriptor.digest), [Fault("", 0, message)])
        with self.open_blob(descriptor) as chunks:
            return b"".join(chunks)

    def open_blob(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
        """Yield the chunks of a blob."""
        return self._open(descriptor)

    @contextmanager
    def _open(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        what = f"{self.name}: blob {descriptor.digest}"
        if descriptor.digest not in self.blobs:
            raise MissingError(f"{what} is not there")
        self.asked.append(descriptor.digest)
        data = self.blobs[descriptor.digest]
        if len(data) != descriptor.size:
            raise DigestError(f"{what}: {len(data)} bytes, expected {descriptor.size}")
        yield Checker(descriptor.digest, descriptor.size, what).through([data])

    def put_blob(self, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        """Store a blob unless it is there."""
        if descriptor.digest in self.blobs:
            return
        checker = Checker(descriptor.digest, descriptor.size, f"{self.name}: {descriptor.digest}")
        self.blobs[descriptor.digest] = b"".join(checker.through(chunks))

    def put_manifest(self, data: bytes, *, media_type: str, tag: str | None = None) -> Descriptor:
        """Store a manifest, and name it."""
        if tag is not None:
            check_tag(tag)
        digest = Digest.of(data)
        if len(data) > MAX_MANIFEST:
            raise DocumentError(str(digest), [Fault("", 0, "is too large")])
        document = parse_document(data, name=f"{self.name}@{digest}", media_type=media_type)
        self.blobs[digest] = data
        self.types[digest] = document.media_type
        if tag is not None:
            self.named[tag] = digest
        return Descriptor(media_type=document.media_type, digest=digest, size=len(data))

    def referrers(self, digest: Digest, *, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """Return what refers to ``digest``, by digest."""
        found = []
        for one in sorted(self.types):
            try:
                document = parse_document(self.manifest(str(one))[1], name=str(one))
            except MachineOSError:
                continue  # what cannot be read refers to nothing
            if not isinstance(document, Manifest) or document.subject is None:
                continue
            kind = document.artifact_type or document.config.media_type
            if document.subject.digest == digest and artifact_type in {"", kind}:
                found.append(
                    Descriptor(
                        media_type=document.media_type,
                        digest=one,
                        size=len(self.blobs[one]),
                        annotations=document.annotations,
                        artifact_type=kind,
                    )
                )
        return tuple(found)

    def tags(self) -> tuple[str, ...]:
        """Return the tags, sorted."""
        return tuple(sorted(self.named))


class MemoryRegistry:
    """Repositories by name."""

    def __init__(self) -> None:
        self._repositories: dict[str, MemoryRepository] = {}

    @property
    def name(self) -> str:
        """``memory``."""
        return "memory"

    def repository(self, name: str) -> MemoryRepository:
        """Return the repository ``name``."""
        check_name(name)
        return self._repositories.setdefault(name, MemoryRepository(f"memory/{name}"))

    def empty(self) -> None:
        """Forget everything."""
        self._repositories.clear()
