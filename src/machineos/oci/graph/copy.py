"""Copying images between repositories: children before parents, the tag last.

Owns the order of writing; ``walk`` says what there is. Invariant: whatever a name in the sink
points to is complete; a copy that fails leaves blobs and untagged manifests behind, never a tag.
Memory does not depend on the size of the blobs: each worker holds a few chunks.
"""

from __future__ import annotations

import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from machineos.errors import (
    AuthError,
    DigestError,
    DocumentError,
    MachineOSError,
    MissingError,
    StalledError,
    TransferError,
    VerificationError,
)
from machineos.oci.graph.walk import MAX_DEPTH, refusal, select, walk
from machineos.oci.model.documents import Index, parse_document
from machineos.oci.model.stream import verified

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from concurrent.futures import Future

    from machineos.core.digest import Digest
    from machineos.oci.graph.walk import Graph, Node
    from machineos.oci.model.documents import Descriptor
    from machineos.oci.model.repository import Repository

WORKERS = 4
_TRIES = 2
_WAKE = 2  # seconds
REFERRER_LIMIT = 64 << 20  # bytes of blobs of one referrer


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a copy is. ``skipped`` names the referrers that were not copied, and why."""

    blobs: int = 0
    blobs_total: int = 0
    bytes: int = 0
    bytes_total: int = 0
    current: str = ""
    skipped: tuple[str, ...] = ()


@runtime_checkable
class Mounts(Protocol):
    """A repository that can take a blob from another one of the same registry without a copy."""

    def mount_blob(self, descriptor: Descriptor, source: Repository) -> bool:
        """Return whether the blob is here now. Raises: TransferError."""
        ...


@runtime_checkable
class Holds(Protocol):
    """A repository that can say more of a blob than that its name is there."""

    def holds_blob(self, descriptor: Descriptor) -> bool:
        """Whether the blob is there and relied on; one that is not is stored again."""
        ...


def holds(sink: Repository, blob: Descriptor) -> bool:
    """Whether a repository has a blob, and relies on it where it can say that."""
    return sink.holds_blob(blob) if isinstance(sink, Holds) else sink.has_blob(blob.digest)


def copy_graph(
    source: Repository,
    sink: Repository,
    reference: str,
    *,
    tag: str | None = None,
    referrers: bool | Collection[str] = False,
    platforms: Sequence[str] = (),
    workers: int = WORKERS,
    progress: Callable[[Progress], None] | None = None,
    keep_digest: bool = True,
) -> Descriptor:
    """Copy a manifest or index with all it names and return the descriptor of the copy.

    ``referrers`` is True for all, or the artifact types wanted; each that is broken, too large or
    about something else is skipped and named in the last ``Progress``. ``platforms``
    (``linux/amd64``) picks from an index: one gives the manifest of that platform, several need
    ``keep_digest=False`` because the index is written anew. ``progress`` is called from the
    threads, one call at a time.

    Raises: MissingError, VerificationError, DocumentError, TransferError, SpaceError, UsageError.
    """
    graph = select(walk(source, reference), platforms, source.name, keep_digest=keep_digest)
    job = _Copy(source, sink, workers, progress)
    job.blobs(graph.blobs)
    for node in graph.nodes[:-1]:
        _put(sink, node, None)
    root = graph.root
    if referrers is not False:
        _put(sink, root, None)
        kinds = ("",) if referrers is True else tuple(sorted(set(referrers)))
        for node in graph.nodes:
            for kind in kinds:
                job.referrers(node.descriptor.digest, kind)
    if referrers is False or tag is not None:
        _put(sink, root, tag)
    job.finish()
    return root.descriptor


class _Stopped(MachineOSError):  # noqa: N818 (it is a signal, no error)
    """Another worker failed; never leaves this module."""


class _Copy:
    """One running copy: the workers, what they have done, and the switch that stops them."""

    def __init__(
        self,
        source: Repository,
        sink: Repository,
        workers: int,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self._source = source
        self._sink = sink
        self._workers = max(1, workers)
        self._report = progress
        self._state = Progress()
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def blobs(self, blobs: Sequence[Descriptor]) -> None:
        """Copy blobs in parallel; the first failure stops all and is raised."""
        self._stop.clear()  # it may be on since a referrer that was skipped
        self._note(blobs_total=len(blobs), bytes_total=sum(blob.size for blob in blobs))
        if self._workers > 1 and len(blobs) > 1:
            self._parallel(blobs)
            return
        for blob in blobs:
            self._blob(blob)

    def _parallel(self, blobs: Sequence[Descriptor]) -> None:
        # The largest first, so that no worker is left alone with it at the end.
        ordered = sorted(blobs, key=lambda blob: (-blob.size, blob.digest))
        with ThreadPoolExecutor(self._workers, thread_name_prefix="oci-copy") as pool:
            try:
                futures = [pool.submit(self._blob, blob) for blob in ordered]
                done = _first_end(futures)
            except BaseException:
                self._stop.set()  # what has not begun ends at once, too
                raise
            if any(future.exception() is not None for future in done):
                self._stop.set()
        errors = [error for future in futures if (error := future.exception()) is not None]
        for error in sorted(errors, key=lambda item: isinstance(item, _Stopped)):
            raise error

    def referrers(self, subject: Digest, kind: str, depth: int = 0) -> None:
        """Copy the referrers of ``subject`` that hold together."""
        for entry in self._source.referrers(subject, artifact_type=kind):
            try:
                graph = walk(self._source, str(entry.digest), limit=REFERRER_LIMIT)
                self._check_subject(graph, subject)
                self.blobs(graph.blobs)
            except (DocumentError, VerificationError, MissingError) as error:
                # Anyone who may push can add a broken referrer; it must not stop the good ones.
                self._note(skipped=(f"{entry.digest}: {error.message}",))
                continue
            for node in graph.nodes:
                _put(self._sink, node, None)
            if depth < MAX_DEPTH:
                self.referrers(entry.digest, "", depth + 1)

    def finish(self) -> None:
        """Report the end."""
        self._note(current="")

    def _check_subject(self, graph: Graph, subject: Digest) -> None:
        root = parse_document(graph.root.data, name=str(graph.root.descriptor.digest))
        if isinstance(root, Index) or root.subject is None or root.subject.digest != subject:
            raise refusal(
                self._source, graph.root.descriptor.digest, f"does not refer to {subject}"
            )

    def _blob(self, blob: Descriptor) -> None:
        if self._stop.is_set():
            raise _Stopped("stopped")
        if holds(self._sink, blob):
            self._note(blobs=1, bytes=blob.size, current=str(blob.digest))
            return
        if isinstance(self._sink, Mounts) and self._sink.mount_blob(blob, self._source):
            self._note(blobs=1, bytes=blob.size, current=str(blob.digest))
            return
        if blob.data is not None:
            self._sink.put_blob(blob, (blob.data,))
            self._note(blobs=1, bytes=blob.size, current=str(blob.digest))
            return
        left = _TRIES
        while True:
            left -= 1
            passed = 0

            def count(size: int) -> None:
                nonlocal passed
                if self._stop.is_set():
                    raise _Stopped("stopped")
                passed += size
                self._note(bytes=size, current=str(blob.digest))

            try:
                with self._source.open_blob(blob) as chunks:
                    checked = verified(chunks, blob, f"{self._source.name}: blob {blob.digest}")
                    checked.observe(count)
                    self._sink.put_blob(blob, checked)
            except (AuthError, StalledError):
                raise
            except TransferError:
                # The transport has tried again by itself where it could; a lost upload session
                # needs the blob from its start.
                if not left:
                    raise
                self._note(bytes=-passed)
            else:
                self._note(blobs=1, bytes=blob.size - passed)
                return

    def _note(
        self,
        *,
        blobs: int = 0,
        blobs_total: int = 0,
        bytes: int = 0,  # noqa: A002 (the name of the field)
        bytes_total: int = 0,
        current: str = "",
        skipped: tuple[str, ...] = (),
    ) -> None:
        with self._lock:
            old = self._state
            self._state = Progress(
                blobs=old.blobs + blobs,
                blobs_total=old.blobs_total + blobs_total,
                bytes=old.bytes + bytes,
                bytes_total=old.bytes_total + bytes_total,
                current=current,
                skipped=old.skipped + skipped,
            )
            if self._report is not None:
                self._report(self._state)


def _first_end(
    futures: Collection[Future[None]], *, wake: float = _WAKE
) -> Collection[Future[None]]:
    """Wait until all have ended or one has failed; return those that have ended.

    Python may take a signal in the moment before it blocks, and would handle it only afterwards:
    so an interrupt counts after ``wake`` seconds at the latest, not after the largest blob.
    """
    while True:
        done, running = wait(futures, timeout=wake, return_when=FIRST_EXCEPTION)
        if not running or any(future.exception() is not None for future in done):
            return done


def _put(sink: Repository, node: Node, tag: str | None) -> None:
    stored = sink.put_manifest(node.data, media_type=node.descriptor.media_type, tag=tag)
    if stored.digest != node.descriptor.digest:
        raise DigestError(
            f"{sink.name}: stored manifest {node.descriptor.digest} as {stored.digest}"
        )
