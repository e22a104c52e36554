"""An archive as a repository that can only be read: its blobs are parts of the file, not copies.

Invariant: what comes out was checked against its digest on the way (``LayoutReader``), whatever the
archive says, and whoever writes to the file meanwhile.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from machineos.build.foreign.members import Extent
from machineos.errors import DigestError, DocumentError, Fault, MissingError, UsageError
from machineos.oci.layout.reader import LayoutReader
from machineos.oci.model.documents import MAX_MANIFEST
from machineos.oci.model.stream import CHUNK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from machineos.core.digest import Digest
    from machineos.oci.model.documents import Descriptor, Index


class ArchiveRepository(LayoutReader):
    """The images of an archive: ``blobs`` are parts of ``file``, ``written`` is what we wrote of it
    ourselves, ``index`` names the images, also those that are written.

    ``called`` is what the user calls the one that is wanted, ``wanted``, whatever its tag is.
    """

    def __init__(
        self,
        name: str,
        file: int,
        blobs: Mapping[Digest, Extent],
        index: Index,
        *,
        wanted: Descriptor,
        called: str,
        written: Mapping[Digest, bytes] | None = None,
    ) -> None:
        self._name = name
        self._file = file
        self._blobs = blobs
        self._images = index
        self._wanted = wanted
        self._called = called
        self._written = written or {}

    @property
    def name(self) -> str:
        """``oci-archive:FILE``, or how else it came."""
        return self._name

    def resolve(self, reference: str) -> Descriptor:
        """Return the descriptor of the image that is wanted, or of a tag or digest.

        Raises: MissingError, DocumentError.
        """
        if reference == self._called:
            return self._wanted
        return super().resolve(reference)

    def called(self, name: str) -> ArchiveRepository:
        """Return the same, in which the image that is wanted is called ``name``."""
        return ArchiveRepository(
            self._name,
            self._file,
            self._blobs,
            self._images,
            wanted=self._wanted,
            called=name,
            written=self._written,
        )

    def has_blob(self, digest: Digest) -> bool:
        """Whether the blob is there; its bytes are checked when it is read."""
        return digest in self._written or digest in self._blobs

    def entries(self) -> tuple[Descriptor, ...]:
        """Return the images."""
        return self._images.manifests

    def blob_range(self, descriptor: Descriptor, offset: int, size: int) -> bytes:
        """Return a part of a blob, unchecked. Raises: MissingError, DigestError."""
        if descriptor.digest in self._written:
            return self._written[descriptor.digest][offset : offset + size]
        extent = self._extent(descriptor)
        return read_extent(
            self._file, Extent(extent.start + offset, min(size, extent.size - offset))
        )

    def put_blob(self, descriptor: Descriptor, chunks: Iterable[bytes]) -> NoReturn:
        """Raises: UsageError."""
        del descriptor, chunks
        raise self._read_only()

    def put_manifest(self, data: bytes, *, media_type: str, tag: str | None = None) -> NoReturn:
        """Raises: UsageError."""
        del data, media_type, tag
        raise self._read_only()

    def _read_only(self) -> UsageError:
        return UsageError(f"{self.name} can only be read")

    def _index(self) -> Index:
        return self._images

    def _small(self, digest: Digest) -> bytes:
        if digest not in self._blobs:
            raise MissingError(f"{self._what(digest)} is not there")
        return read_small(self._file, self._blobs[digest], MAX_MANIFEST, self._what(digest))

    def _extent(self, descriptor: Descriptor) -> Extent:
        extent = self._blobs.get(descriptor.digest)
        what = self._what(descriptor.digest)
        if extent is None:
            raise MissingError(f"{what} is not there")
        if extent.size != descriptor.size:
            raise DigestError(f"{what}: {extent.size} bytes, expected {descriptor.size}")
        return extent

    @contextmanager
    def _chunks(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        written = self._written.get(descriptor.digest)
        if written is not None:
            yield iter((written,))
        else:
            yield extent_chunks(self._file, self._extent(descriptor))


def extent_chunks(file: int, extent: Extent) -> Iterator[bytes]:
    """Yield the content of a part of ``file``, shorter only where that was cut off meanwhile."""
    start, left = extent.start, extent.size
    while left > 0 and (chunk := os.pread(file, min(CHUNK, left), start)):
        start, left = start + len(chunk), left - len(chunk)
        yield chunk


def read_extent(file: int, extent: Extent) -> bytes:
    """Return the content of a small part of ``file``."""
    return b"".join(extent_chunks(file, extent))


def read_small(file: int, extent: Extent, limit: int, what: str) -> bytes:
    """Return the content of a part of ``file``. Raises: DocumentError (over ``limit`` bytes)."""
    if extent.size > limit:
        raise DocumentError(what, [Fault("", 0, f"is larger than {limit} bytes")])
    return read_extent(file, extent)
