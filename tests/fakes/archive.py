"""A registry whose repositories are read out of tar archives; what is written goes to folders.

For the contract of ``Repository``: each read packs the folder and looks into the archive.
"""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from machineos.build.foreign.archives import read_layout
from machineos.build.foreign.repository import ArchiveRepository
from machineos.core.digest import Digest
from machineos.oci.layout.folder import LayoutRepository
from machineos.oci.model.documents import INDEX, Descriptor, Index
from machineos.oci.model.reference import check_name

NOTHING = Descriptor(media_type="", digest=Digest.of(b""), size=0)


def pack(folder: Path, archive: Path) -> Path:
    """Write a folder as an archive, the way ``tar -cf`` does."""
    with tarfile.open(archive, "w") as tar:
        for path in sorted(folder.rglob("*")):
            tar.add(path, path.relative_to(folder), recursive=False)
    return archive


class Archived:
    """One repository."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer = LayoutRepository(folder, writable=True)

    @property
    def name(self) -> str:
        """``oci:DIR``."""
        return self._writer.name

    @contextmanager
    def read(self) -> Iterator[ArchiveRepository]:
        """The archive of what is in the folder, which becomes a layout when it is none."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if not (self._folder / "oci-layout").exists():
            (self._folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
            empty = Index(media_type=INDEX, manifests=())
            (self._folder / "index.json").write_bytes(empty.to_bytes())
        # One for each reading: copies read in several threads.
        with tempfile.TemporaryDirectory() as place:
            file = pack(self._folder, Path(place) / "x.tar").open("rb")
        with file:
            index, blobs = read_layout(file.fileno(), name=self.name)
            yield ArchiveRepository(
                self.name, file.fileno(), blobs, index, wanted=NOTHING, called="\0"
            )

    def resolve(self, reference: str) -> Descriptor:
        """As the protocol says."""
        with self.read() as archive:
            return archive.resolve(reference)

    def manifest(self, reference: str) -> tuple[Descriptor, bytes]:
        """As the protocol says."""
        with self.read() as archive:
            return archive.manifest(reference)

    def has_blob(self, digest: Digest) -> bool:
        """As the protocol says."""
        with self.read() as archive:
            return archive.has_blob(digest)

    def blob(self, descriptor: Descriptor, *, limit: int) -> bytes:
        """As the protocol says."""
        with self.read() as archive:
            return archive.blob(descriptor, limit=limit)

    @contextmanager
    def open_blob(self, descriptor: Descriptor) -> Iterator[Iterator[bytes]]:
        """As the protocol says."""
        with self.read() as archive, archive.open_blob(descriptor) as chunks:
            yield chunks

    def put_blob(self, descriptor: Descriptor, chunks: Iterable[bytes]) -> None:
        """Into the folder."""
        self._writer.put_blob(descriptor, chunks)

    def put_manifest(self, data: bytes, *, media_type: str, tag: str | None = None) -> Descriptor:
        """Into the folder."""
        return self._writer.put_manifest(data, media_type=media_type, tag=tag)

    def referrers(self, digest: Digest, *, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """As the protocol says."""
        with self.read() as archive:
            return archive.referrers(digest, artifact_type=artifact_type)

    def tags(self) -> tuple[str, ...]:
        """As the protocol says."""
        with self.read() as archive:
            return archive.tags()


class ArchivedRegistry:
    """Repositories by name."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def name(self) -> str:
        """The folder."""
        return str(self._root)

    def repository(self, name: str) -> Archived:
        """Return the repository ``name``."""
        return Archived(self._root / check_name(name))
