"""Copying images between repositories: children before parents, the tag last.

Owns the walk of an image graph and the order of writing. Invariant: whatever a name in the sink
points to is complete; a copy that fails leaves blobs and untagged manifests behind, never a tag.
Memory does not depend on the size of the blobs: each worker holds a few chunks.
"""

from __future__ import annotations

import threading
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from machineos.core.digest import Digest
from machineos.errors import (
    AuthError,
    DigestError,
    DocumentError,
    Fault,
    MachineOSError,
    MissingError,
    StalledError,
    TransferError,
    UsageError,
    VerificationError,
)
from machineos.oci.model.documents import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    parse_document,
)
from machineos.oci.model.stream import verified

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from machineos.oci.model.repository import Repository

WORKERS = 4
_TRIES = 2
MAX_DEPTH = 4
MAX_MANIFESTS = 2000
MAX_BLOBS = 20_000
MAX_HELD = 16 << 20  # bytes of manifests held in memory during one copy
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


@dataclass(frozen=True, slots=True)
class Node:
    """A manifest or index with its bytes."""

    descriptor: Descriptor
    data: bytes


@dataclass(frozen=True, slots=True)
class Graph:
    """What one image consists of: manifests in the order of writing (root last), then blobs."""

    nodes: tuple[Node, ...]
    blobs: tuple[Descriptor, ...]

    @property
    def root(self) -> Node:
        """The manifest or index that was asked for."""
        return self.nodes[-1]

    @property
    def size(self) -> int:
        """Bytes of all blobs."""
        return sum(blob.size for blob in self.blobs)


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


def walk(source: Repository, reference: str, *, limit: int | None = None) -> Graph:
    """Read all manifests of an image; ``limit`` bounds the bytes of its blobs.

    Raises: MissingError, VerificationError, DocumentError, TransferError.
    """
    walker = _Walker(source)
    descriptor, data = source.manifest(reference)
    walker.visit(descriptor, data, 0)
    graph = Graph(tuple(walker.nodes.values()), tuple(walker.blobs.values()))
    if limit is not None and graph.size > limit:
        raise _refuse(source, descriptor.digest, f"has {graph.size} bytes, at most {limit} allowed")
    return graph


def select(graph: Graph, platforms: Sequence[str], name: str, *, keep_digest: bool = True) -> Graph:
    """Return the part of ``graph`` for ``platforms``, all of it when none are given.

    Raises: MissingError, UsageError.
    """
    if not platforms:
        return graph
    root = parse_document(graph.root.data, name=name)
    if isinstance(root, Manifest):
        return graph
    wanted = [entry for entry in root.manifests if platform_name(entry) in platforms]
    missing = set(platforms) - {platform_name(entry) for entry in wanted}
    if missing:
        there = ", ".join(sorted({platform_name(entry) for entry in root.manifests}))
        raise MissingError(f"{name}: no platform {', '.join(sorted(missing))}", hint=f"has {there}")
    nodes = {node.descriptor.digest: node for node in graph.nodes}
    if len(wanted) == 1 and keep_digest:
        return _subgraph(nodes, [wanted[0].digest])
    if keep_digest:
        raise UsageError(
            f"{name}: several platforms of an index cannot be copied under its digest",
            hint="copy all platforms, or one, or allow a new digest",
        )
    index = Index(media_type=root.media_type, manifests=tuple(wanted), annotations=root.annotations)
    part = _subgraph(nodes, [entry.digest for entry in wanted])
    data = index.to_bytes()
    descriptor = Descriptor(media_type=index.media_type, digest=Digest.of(data), size=len(data))
    return replace(part, nodes=(*part.nodes, Node(descriptor, data)))


def platform_name(entry: Descriptor) -> str:
    """Return ``os/architecture[/variant]`` of an entry of an index, ``unknown`` if it has none."""
    platform = entry.platform or {}
    parts = [platform.get("os"), platform.get("architecture"), platform.get("variant")]
    return "/".join(str(part) for part in parts if part) or "unknown"


def children(document: Manifest | Index) -> tuple[Descriptor, ...]:
    """Return what a document names: the manifests of an index, or the config and the layers."""
    if isinstance(document, Index):
        return document.manifests
    return (document.config, *document.layers)


def _subgraph(nodes: dict[Digest, Node], roots: list[Digest]) -> Graph:
    found: dict[Digest, Node] = {}
    blobs: dict[Digest, Descriptor] = {}

    def visit(digest: Digest) -> None:
        node = nodes[digest]
        for child in children(parse_document(node.data, name=str(digest))):
            if child.digest in nodes:
                visit(child.digest)
            else:
                blobs.setdefault(child.digest, child)
        found.setdefault(digest, node)

    for digest in roots:
        visit(digest)
    return Graph(tuple(found.values()), tuple(blobs.values()))


class _Walker:
    """Depth first, each manifest once, with a bound on everything a hostile index could inflate."""

    def __init__(self, source: Repository) -> None:
        self._source = source
        self._held = 0
        self.nodes: dict[Digest, Node] = {}
        self.blobs: dict[Digest, Descriptor] = {}

    def visit(self, descriptor: Descriptor, data: bytes, depth: int) -> None:
        name = f"{self._source.name}@{descriptor.digest}"
        document = parse_document(data, name=name, media_type=descriptor.media_type)
        self._held += len(data)
        if depth > MAX_DEPTH or len(self.nodes) >= MAX_MANIFESTS or self._held > MAX_HELD:
            raise _refuse(self._source, descriptor.digest, "names too many manifests or too deep")
        if isinstance(document, Index):
            for child in document.manifests:
                self._child(child, depth)
        else:
            for child in children(document):
                self._blob(child)
        self.nodes[descriptor.digest] = Node(descriptor, data)

    def _child(self, child: Descriptor, depth: int) -> None:
        if child.digest in self.nodes:
            return
        if child.media_type not in MANIFEST_TYPES | INDEX_TYPES:
            raise _refuse(self._source, child.digest, f"has the unknown type {child.media_type!r}")
        if child.size > MAX_MANIFEST:
            raise _refuse(self._source, child.digest, f"is larger than {MAX_MANIFEST} bytes")
        found, data = self._source.manifest(str(child.digest))
        if len(data) != child.size or found.media_type != child.media_type:
            raise DigestError(
                f"{self._source.name}@{child.digest}: {len(data)} bytes of {found.media_type}, "
                f"expected {child.size} bytes of {child.media_type}"
            )
        self.visit(found, data, depth + 1)

    def _blob(self, child: Descriptor) -> None:
        known = self.blobs.setdefault(child.digest, child)
        if known.size != child.size:
            raise DigestError(
                f"{self._source.name}: blob {child.digest} is given two sizes, "
                f"{known.size} and {child.size}"
            )
        if len(self.blobs) > MAX_BLOBS:
            raise _refuse(self._source, child.digest, f"is one of over {MAX_BLOBS} blobs")


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
        self._note(blobs_total=len(blobs), bytes_total=sum(blob.size for blob in blobs))
        if self._workers == 1 or len(blobs) < 2:
            for blob in blobs:
                self._blob(blob)
            return
        # The largest first, so that no worker is left alone with it at the end.
        ordered = sorted(blobs, key=lambda blob: (-blob.size, blob.digest))
        self._stop.clear()
        with ThreadPoolExecutor(self._workers, thread_name_prefix="oci-copy") as pool:
            futures = [pool.submit(self._blob, blob) for blob in ordered]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            except BaseException:
                self._stop.set()
                pool.shutdown(cancel_futures=True)
                raise
            failed = [future for future in done if future.exception() is not None]
            if failed:
                self._stop.set()
                pool.shutdown(cancel_futures=True)
        errors = [
            error
            for future in futures
            if not future.cancelled() and (error := future.exception()) is not None
        ]
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
            raise _refuse(
                self._source, graph.root.descriptor.digest, f"does not refer to {subject}"
            )

    def _holds(self, blob: Descriptor) -> bool:
        if isinstance(self._sink, Holds):
            return self._sink.holds_blob(blob)
        return self._sink.has_blob(blob.digest)

    def _blob(self, blob: Descriptor) -> None:
        if self._stop.is_set():
            raise _Stopped("stopped")
        if self._holds(blob):
            self._note(blobs=1, bytes=blob.size, current=str(blob.digest))
            return
        if isinstance(self._sink, Mounts) and self._sink.mount_blob(blob, self._source):
            self._note(blobs=1, bytes=blob.size, current=str(blob.digest))
            return
        if blob.data is not None:
            self._sink.put_blob(blob, (blob.data,))
            self._note(blobs=1, bytes=blob.size, current=str(blob.digest))
            return
        for attempt in range(_TRIES):
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
                if attempt == _TRIES - 1:
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


def _put(sink: Repository, node: Node, tag: str | None) -> None:
    stored = sink.put_manifest(node.data, media_type=node.descriptor.media_type, tag=tag)
    if stored.digest != node.descriptor.digest:
        raise DigestError(
            f"{sink.name}: stored manifest {node.descriptor.digest} as {stored.digest}"
        )


def _refuse(source: Repository, digest: Digest, message: str) -> DocumentError:
    return DocumentError(f"{source.name}@{digest}", [Fault("", 0, message)])
