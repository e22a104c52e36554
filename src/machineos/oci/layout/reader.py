"""Reading an OCI image layout, wherever its files are (image specification 1.1, "Image Layout").

Owns what names, digests and subjects mean in a layout; a folder and an archive say how its index
and its blobs are had. A tag is the annotation ``org.opencontainers.image.ref.name`` of an entry of
``index.json``. Invariant: the bytes that come out have the digest that was asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING

from machineos.core.digest import Digest, is_digest
from machineos.errors import DocumentError, Fault, MachineOSError, MissingError
from machineos.oci.model.documents import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_MANIFEST,
    REF_NAME,
    Descriptor,
    Manifest,
    parse_document,
    parse_index,
)
from machineos.oci.model.referrers import fallback_tag, is_fallback_tag, referrer
from machineos.oci.model.stream import Verified

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

    from machineos.oci.model.documents import Index

MARKER = "oci-layout"
INDEX_FILE = "index.json"
VERSION = "1.0.0"
MAX_REFERRERS = 1000
_SCAN_LIMIT = 64 << 20  # bytes of manifests read to answer one referrers() call


class LayoutReader(ABC):
    """The reading side of a ``Repository`` that is a layout."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name for messages."""

    @abstractmethod
    def has_blob(self, digest: Digest) -> bool:
        """Whether the blob is there; its bytes are checked when it is read."""

    @abstractmethod
    def entries(self) -> tuple[Descriptor, ...]:
        """Return the entries of ``index.json`` with their annotations, none without a layout.

        Raises: DocumentError.
        """

    @abstractmethod
    def _index(self) -> Index:
        """Return ``index.json``. Raises: MissingError, DocumentError."""

    @abstractmethod
    def _small(self, digest: Digest) -> bytes:
        """Return a blob of unknown size, at most ``MAX_MANIFEST`` bytes, unchecked.

        Raises: MissingError, DocumentError.
        """

    @abstractmethod
    def _chunks(self, descriptor: Descriptor) -> AbstractContextManager[Iterator[bytes]]:
        """Yield the chunks of a blob, unchecked, at least a byte more than promised where there is
        more. Raises: MissingError, DigestError."""

    def resolve(self, reference: str) -> Descriptor:
        """Return the descriptor of a tag or digest: what looks like a digest is one, whatever an
        index calls its entries. Raises: MissingError, DocumentError."""
        index = self._index()
        if is_digest(reference):
            return self._by_digest(index, Digest.parse(reference))
        tagged = [
            entry for entry in index.manifests if entry.annotations.get(REF_NAME) == reference
        ]
        if len({entry.digest for entry in tagged}) > 1:
            raise DocumentError(
                self.name, [Fault("", 0, f"gives the tag {reference!r} to two manifests")]
            )
        if tagged:
            return plain(tagged[0])
        raise MissingError(f"{self.name}: no tag {reference[:128]!r}", hint=known_tags(index))

    def manifest(self, reference: str) -> tuple[Descriptor, bytes]:
        """Return descriptor and bytes of a tag or digest.

        Raises: MissingError, DigestError, DocumentError.
        """
        descriptor = self.resolve(reference)
        data = self.blob(descriptor, limit=MAX_MANIFEST)
        parse_document(
            data, name=f"{self.name}@{descriptor.digest}", media_type=descriptor.media_type
        )
        return descriptor, data

    def blob(self, descriptor: Descriptor, *, limit: int) -> bytes:
        """Return a small blob whole. Raises: MissingError, DigestError, DocumentError."""
        if descriptor.size > limit:
            raise DocumentError(
                self._what(descriptor.digest),
                [Fault("", 0, f"has {descriptor.size} bytes, at most {limit} are read")],
            )
        with self.open_blob(descriptor) as chunks:
            return b"".join(chunks)

    @contextmanager
    def open_blob(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        """Yield the chunks of a blob, the last one only after the digest of the whole matched.

        Raises: MissingError, DigestError.
        """
        with self._chunks(descriptor) as pieces:
            chunks = Verified(pieces, descriptor, self._what(descriptor.digest))
            try:
                yield chunks
            finally:
                chunks.close()

    def referrers(self, digest: Digest, *, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """Return the manifests whose subject is ``digest``, by digest, at most ``MAX_REFERRERS``.

        An entry that cannot be read as a manifest refers to nothing; ``verify`` reports it.
        Raises: DocumentError when ``index.json`` is broken or names too much to look through.
        """
        found: dict[Digest, Descriptor] = {}
        budget = _SCAN_LIMIT
        entries = self.entries()
        listed = self._listed(entries, fallback_tag(digest))
        for entry in sorted((*entries, *listed), key=lambda item: item.digest):
            if entry.digest in found or entry.media_type in INDEX_TYPES:
                continue
            budget -= min(entry.size, MAX_MANIFEST)
            if budget < 0:
                raise DocumentError(
                    self.name, [Fault("", 0, "holds too many manifests to look for referrers")]
                )
            manifest = self._try_manifest(entry)
            if manifest is None or manifest.subject is None or manifest.subject.digest != digest:
                continue
            kind = manifest.artifact_type or manifest.config.media_type
            if artifact_type in {"", kind} and len(found) < MAX_REFERRERS:
                bare = Descriptor(
                    media_type=manifest.media_type, digest=entry.digest, size=entry.size
                )
                found[entry.digest] = referrer(manifest, bare)
        return tuple(found.values())

    def tags(self) -> tuple[str, ...]:
        """Return the tags of images, sorted."""
        names = {entry.annotations.get(REF_NAME) for entry in self.entries()}
        return tuple(sorted(name for name in names if name and not is_fallback_tag(name)))

    def _what(self, digest: Digest) -> str:
        return f"{self.name}: blob {digest}"

    def _by_digest(self, index: Index, digest: Digest) -> Descriptor:
        for entry in index.manifests:
            if entry.digest == digest:
                return plain(entry)
        # The platforms of an index need no entry of their own.
        try:
            data = self._small(digest)
        except MissingError as error:
            raise MissingError(f"{self.name}: no manifest {digest}") from error
        digest.check(data, self._what(digest))
        document = parse_document(data, name=f"{self.name}@{digest}")
        return Descriptor(media_type=document.media_type, digest=digest, size=len(data))

    def _try_manifest(self, entry: Descriptor) -> Manifest | None:
        try:
            data = self.blob(entry, limit=MAX_MANIFEST)
            document = parse_document(data, name=str(entry.digest), media_type=entry.media_type)
        except MachineOSError:
            return None
        return document if isinstance(document, Manifest) else None

    def _listed(self, entries: Iterable[Descriptor], tag: str) -> tuple[Descriptor, ...]:
        """Return what the index under ``tag`` lists; what is none, or is damaged, lists nothing."""
        for entry in entries:
            if entry.annotations.get(REF_NAME) == tag and entry.media_type in INDEX_TYPES:
                try:
                    data = self.blob(entry, limit=MAX_MANIFEST)
                    return parse_index(data, name=tag, media_type=entry.media_type).manifests
                except MachineOSError:
                    return ()
        return ()


def plain(entry: Descriptor) -> Descriptor:
    """Return an entry without where it was listed. Raises: DocumentError (it is no manifest)."""
    if entry.media_type and entry.media_type not in MANIFEST_TYPES | INDEX_TYPES:
        raise DocumentError(
            str(entry.digest), [Fault("mediaType", 0, f"{entry.media_type!r} is no manifest")]
        )
    return Descriptor(media_type=entry.media_type, digest=entry.digest, size=entry.size)


def known_tags(index: Index) -> str:
    """Return a hint with the tags of a layout."""
    named = {entry.annotations.get(REF_NAME, "") for entry in index.manifests} - {""}
    tags = sorted(name for name in named if not is_fallback_tag(name))
    if tags:
        return f"tags there: {', '.join(tags[:20])}"
    one = next((str(entry.digest) for entry in index.manifests), "")
    return f"it has no tags: name an image by its digest, as in @{one}" if one else "it is empty"
