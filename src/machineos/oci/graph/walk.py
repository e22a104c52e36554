"""What an image consists of: the walk from a reference to all it names, bounded, and parts of it.

Decides only: documents are read through a ``Repository``. Invariant: a ``Graph`` is complete, every
manifest in it was read, and no bound on number, depth or bytes was exceeded, whatever a hostile
index says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from machineos.core.digest import Digest
from machineos.errors import DigestError, DocumentError, Fault, MissingError, UsageError
from machineos.oci.graph.platform import platform_name
from machineos.oci.model.documents import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    MAX_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    parse_document,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from machineos.oci.model.repository import Repository

MAX_DEPTH = 4
MAX_MANIFESTS = 2000
MAX_BLOBS = 20_000
MAX_HELD = 16 << 20  # bytes of manifests held in memory during one walk


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


def walk(source: Repository, reference: str, *, limit: int | None = None) -> Graph:
    """Read all manifests of an image; ``limit`` bounds the bytes of its blobs.

    Raises: MissingError, VerificationError, DocumentError, TransferError.
    """
    walker = _Walker(source)
    descriptor, data = source.manifest(reference)
    walker.visit(descriptor, data, 0)
    graph = Graph(tuple(walker.nodes.values()), tuple(walker.blobs.values()))
    if limit is not None and graph.size > limit:
        raise refusal(source, descriptor.digest, f"has {graph.size} bytes, at most {limit} allowed")
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
    wanted = _wanted(root, platforms, name)
    if keep_digest and len(wanted) > 1:
        raise UsageError(
            f"{name}: several platforms of an index cannot be copied under its digest",
            hint="copy all platforms, or one, or allow a new digest",
        )
    nodes = {node.descriptor.digest: node for node in graph.nodes}
    part = _subgraph(nodes, [entry.digest for entry in wanted])
    if keep_digest:
        return part
    index = Index(media_type=root.media_type, manifests=wanted, annotations=root.annotations)
    data = index.to_bytes()
    descriptor = Descriptor(media_type=index.media_type, digest=Digest.of(data), size=len(data))
    return replace(part, nodes=(*part.nodes, Node(descriptor, data)))


def _wanted(root: Index, platforms: Sequence[str], name: str) -> tuple[Descriptor, ...]:
    wanted = tuple(entry for entry in root.manifests if platform_name(entry) in platforms)
    missing = set(platforms) - {platform_name(entry) for entry in wanted}
    if missing:
        there = ", ".join(sorted({platform_name(entry) for entry in root.manifests}))
        raise MissingError(f"{name}: no platform {', '.join(sorted(missing))}", hint=f"has {there}")
    return wanted


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
            raise refusal(self._source, descriptor.digest, "names too many manifests or too deep")
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
            raise refusal(self._source, child.digest, f"has the unknown type {child.media_type!r}")
        if child.size > MAX_MANIFEST:
            raise refusal(self._source, child.digest, f"is larger than {MAX_MANIFEST} bytes")
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
            raise refusal(self._source, child.digest, f"is one of over {MAX_BLOBS} blobs")


def refusal(source: Repository, digest: Digest, message: str) -> DocumentError:
    """Return the error that says what is wrong with a manifest of ``source``."""
    return DocumentError(f"{source.name}@{digest}", [Fault("", 0, message)])
