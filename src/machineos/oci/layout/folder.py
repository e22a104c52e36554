"""Images in a folder: the OCI image layout (image specification 1.1, "Image Layout").

Owns ``oci-layout``, ``index.json`` and ``blobs/<algorithm>/<hex>``. A tag is the annotation
``org.opencontainers.image.ref.name`` of an entry of ``index.json``; manifests without a tag
(referrers, the platforms of an index) are entries without it. A ``LayoutRegistry`` keeps repository
``machine/install`` in the folder of that name, which is how zot stores it, so zot can serve it.

What refers to a manifest is listed twice where ``LayoutRegistry`` writes: as an entry without a
tag, as zot and oras have it, and under the tag of the referrers tag schema, as regctl has it; both
are read.

Invariants: a blob's name appears only after its bytes matched; ``index.json`` is replaced whole
under a lock on ``oci-layout``, and is not written at all when nothing changes; entries and keys
written by other tools stay as they are. Reads open once and use that descriptor.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from machineos.core.digest import Digest
from machineos.core.files import (
    atomic,
    fsync_folder,
    locked,
    needing_space,
    read_bounded,
    read_named,
    write_atomic,
)
from machineos.core.jsondoc import parse_json
from machineos.errors import (
    ConflictError,
    DigestError,
    DocumentError,
    Fault,
    MissingError,
    UsageError,
)
from machineos.oci.layout.listing import list_instead, list_manifest
from machineos.oci.layout.reader import INDEX_FILE, MARKER, VERSION, LayoutReader
from machineos.oci.model.documents import (
    INDEX,
    MAX_ENTRIES,
    MAX_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    parse_document,
    parse_index,
)
from machineos.oci.model.reference import check_name, check_tag
from machineos.oci.model.referrers import (
    fallback_tag,
    referrer,
    with_referrer,
)
from machineos.oci.model.stream import CHUNK, verified

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

_MARKER_LIMIT = 4096
_WRITE_BACK = 32 << 20


class LayoutRepository(LayoutReader):
    """One image layout folder. Nothing is created before the first write.

    ``check`` says of a regular file with a blob's name whether it is relied on when that blob is to
    be stored, instead of a look at its size; one that is not is replaced whole. With ``links``
    files may be symbolic links, as Bazel makes them: what is read is proved by its digest, and only
    a regular file is opened. ``lists_referrers``: under a tag, too.
    """

    def __init__(
        self,
        path: Path,
        *,
        writable: bool = False,
        check: Callable[[Path, Descriptor], bool] | None = None,
        links: bool = False,
        lists_referrers: bool = False,
    ) -> None:
        self._path = path
        self._writable = writable
        self._links = links
        self._lists_referrers = lists_referrers
        self._check = check

    @property
    def name(self) -> str:
        """``oci:DIR``."""
        return f"oci:{self._path}"

    @property
    def path(self) -> Path:
        """The folder."""
        return self._path

    def has_blob(self, digest: Digest) -> bool:
        """Whether a regular file of that name is there; its bytes are checked when it is read."""
        try:
            return stat.S_ISREG(self._status(digest).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def holds_blob(self, descriptor: Descriptor) -> bool:
        """Whether the blob is there, so that it need not be stored: a regular file of its name that
        has its size or, where there is a ``check``, passes it."""
        path = self.blob_path(descriptor.digest)
        try:
            status = self._status(descriptor.digest)
        except (FileNotFoundError, NotADirectoryError):
            return False
        if not stat.S_ISREG(status.st_mode):
            return False
        if self._check is not None:
            return self._check(path, descriptor)
        return status.st_size == descriptor.size

    def blob_range(self, descriptor: Descriptor, offset: int, size: int) -> bytes:
        """Return a part of a blob, unchecked. Raises: MissingError, DigestError."""
        handle = self._open(descriptor)
        try:
            return os.pread(handle, size, offset)
        finally:
            os.close(handle)

    def put_blob(self, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        """Store a blob, unless ``holds_blob`` finds it there.

        Raises: DigestError, SpaceError.
        """
        self._prepare(descriptor.digest.algorithm)
        if self.holds_blob(descriptor):
            return
        checked = verified(chunks, descriptor, self._what(descriptor.digest))
        with atomic(self.blob_path(descriptor.digest)) as file:
            written, started = 0, 0
            for chunk in checked:
                file.write(chunk)
                written += len(chunk)
                if written - started >= _WRITE_BACK:
                    # Starts the disk without waiting for it, so that the fsync at the end is short.
                    os.posix_fadvise(file.fileno(), started, _WRITE_BACK, os.POSIX_FADV_DONTNEED)
                    started = written

    def put_manifest(self, data: bytes, *, media_type: str, tag: str | None = None) -> Descriptor:
        """Store a manifest, list it in ``index.json``, and point ``tag`` to it.

        Raises: DocumentError, SpaceError.
        """
        if tag is not None:
            check_tag(tag)
        digest = Digest.of(data)
        document = parse_document(data, name=f"{self.name}@{digest}", media_type=media_type)
        descriptor = Descriptor(
            media_type=document.media_type,
            digest=digest,
            size=len(data),
        )
        self.put_blob(descriptor, (data,))
        self._list(descriptor, tag, document)
        return descriptor

    def entries(self) -> tuple[Descriptor, ...]:
        """Return the entries of ``index.json`` with their annotations, none without a layout.

        Raises: DocumentError.
        """
        if not (self._path / MARKER).exists():
            return ()
        return self._index().manifests

    def blob_path(self, digest: Digest) -> Path:
        """Return where the blob is or would be."""
        return self._path / "blobs" / digest.algorithm / digest.hex

    def require_place(self) -> None:
        """Raise ConflictError unless the folder can be written or, where it is not, be made."""
        wanted = self._path / "blobs" / "sha256"
        there = next(folder for folder in (wanted, *wanted.parents) if os.path.lexists(folder))
        if not there.is_dir():
            raise ConflictError(f"{self.name}: {there} is not a folder")
        if not os.access(there, os.W_OK | os.X_OK):
            raise ConflictError(f"{self.name}: {there} may not be written by you")

    # -- reading

    def _small(self, digest: Digest) -> bytes:
        return self._read(self.blob_path(digest), MAX_MANIFEST)

    @contextmanager
    def _chunks(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        handle = self._open(descriptor)
        try:
            yield _read_chunks(handle, descriptor.size)
        finally:
            os.close(handle)

    def _index(self) -> Index:
        self._check_marker()
        name = str(self._path / INDEX_FILE)
        data = self._read(self._path / INDEX_FILE, MAX_MANIFEST)
        return parse_index(data, name=name, media_type=INDEX)

    def _read(self, path: Path, limit: int) -> bytes:
        return read_named(path, limit) if self._links else read_bounded(path, limit)

    def _status(self, digest: Digest) -> os.stat_result:
        return self.blob_path(digest).stat(follow_symlinks=self._links)

    def _check_marker(self) -> None:
        path = self._path / MARKER
        try:
            data = self._read(path, _MARKER_LIMIT)
        except (MissingError, NotADirectoryError) as error:
            raise MissingError(
                f"{self._path} is not an OCI image layout: it has no file {MARKER}"
            ) from error
        body = parse_json(data, name=str(path))
        if not isinstance(body, dict) or body.get("imageLayoutVersion") != VERSION:
            raise DocumentError(str(path), [Fault("imageLayoutVersion", 0, f"is not {VERSION!r}")])

    def _open(self, descriptor: Descriptor) -> int:
        """Open a blob once, without following a link or waiting on a FIFO, and check its size."""
        what = self._what(descriptor.digest)
        try:
            handle = self._opened(self.blob_path(descriptor.digest))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise MissingError(f"{what} is not there") from error
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENXIO}:
                raise DigestError(f"{what} is not a regular file") from error
            raise
        status = os.fstat(handle)
        if stat.S_ISREG(status.st_mode) and status.st_size == descriptor.size:
            return handle
        os.close(handle)
        if not stat.S_ISREG(status.st_mode):
            raise DigestError(f"{what} is not a regular file")
        raise DigestError(f"{what}: {status.st_size} bytes, expected {descriptor.size}")

    def _opened(self, path: Path) -> int:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        if not self._links:
            return os.open(path, flags | os.O_NOFOLLOW)
        # A look first: to open a device is to do something with it.
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(place).st_mode):
                raise OSError(errno.ENXIO, "not a regular file")
            return os.open(f"/proc/self/fd/{place}", flags)
        finally:
            os.close(place)

    # -- writing

    def _prepare(self, algorithm: str) -> None:
        if not self._writable:
            raise UsageError(f"{self.name} was opened for reading only")
        folder = self._path / "blobs" / algorithm
        if not folder.is_dir():
            with needing_space(folder):
                folder.mkdir(parents=True, exist_ok=True)
                fsync_folder(folder.parent)

    def _list(self, descriptor: Descriptor, tag: str | None, document: Manifest | Index) -> None:
        with (
            needing_space(self._path),
            locked(self._path / MARKER, what=self.name, wait=True),
        ):
            # locked() creates the file empty; it is also empty after a crash just here.
            if (self._path / MARKER).stat().st_size == 0:
                with (self._path / MARKER).open("wb") as file:
                    file.write(msgspec.json.encode({"imageLayoutVersion": VERSION}))
                    file.flush()
                    os.fsync(file.fileno())
            self._check_marker()
            path = self._path / INDEX_FILE
            old: dict[str, Any] = {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
            if path.exists():
                data = _read_index(self._path)
                parse_index(data, name=str(path), media_type=INDEX)
                old = parse_json(data, name=str(path))
            entries = list_manifest(old["manifests"] or [], descriptor, tag)
            if self._lists_referrers and isinstance(document, Manifest) and document.subject:
                listed = self._with_referrer(document.subject.digest, document, descriptor)
                entries = entries if listed is None else list_instead(entries, *listed)
            if len(entries) > MAX_ENTRIES:
                raise DocumentError(str(path), [Fault("", 0, f"has over {MAX_ENTRIES} entries")])
            if entries != old["manifests"] or not path.exists():
                write_atomic(path, msgspec.json.encode({**old, "manifests": entries}))

    def _with_referrer(
        self, subject: Digest, manifest: Manifest, descriptor: Descriptor
    ) -> tuple[Descriptor, str] | None:
        """Store the list of what refers to ``subject`` with one more entry; return where it is, and
        its tag, None when the entry is in it."""
        tag = fallback_tag(subject)
        before = self._listed(self._index().manifests, tag) if self._has_index() else ()
        data = with_referrer(before, referrer(manifest, descriptor))
        if data is None:
            return None
        index = Descriptor(media_type=INDEX, digest=Digest.of(data), size=len(data))
        self._prepare(index.digest.algorithm)
        self.put_blob(index, (data,))
        return index, tag

    def _has_index(self) -> bool:
        return (self._path / INDEX_FILE).exists()


class LayoutRegistry:
    """A folder with one image layout per repository; for ``links`` see ``LayoutRepository``."""

    def __init__(self, root: Path, *, writable: bool = False, links: bool = False) -> None:
        self._root = root
        self._writable = writable
        self._links = links

    @property
    def name(self) -> str:
        """``oci:DIR``."""
        return f"oci:{self._root}"

    def repository(self, name: str) -> LayoutRepository:
        """Return the repository ``name``. Raises: DocumentError for a name that is not allowed."""
        return LayoutRepository(
            self._root / check_name(name),
            writable=self._writable,
            links=self._links,
            lists_referrers=True,
        )


def _read_index(folder: Path) -> bytes:
    return read_bounded(folder / INDEX_FILE, MAX_MANIFEST)


def _read_chunks(handle: int, size: int) -> Iterator[bytes]:
    """Read one byte more than promised, so that a file that grows meanwhile is noticed."""
    left = size + 1
    while left > 0 and (chunk := os.read(handle, min(CHUNK, left))):
        left -= len(chunk)
        yield chunk
