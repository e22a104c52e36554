"""A deep check of a repository: is everything that a name leads to there, with the right bytes?

Owns the finding of faults, not what is done about them: faults come back as data, in a fixed order.
Invariant: ``check`` with no fault means that each manifest, config and layer reachable from the
references was read to its end and matched its digest and size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.errors import MachineOSError, TransferError, VerificationError
from machineos.oci.graph.walk import MAX_DEPTH, MAX_MANIFESTS, children
from machineos.oci.model.documents import Index, parse_document

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from machineos.core.digest import Digest
    from machineos.oci.model.documents import Descriptor, Manifest
    from machineos.oci.model.repository import Repository


@dataclass(frozen=True, slots=True)
class Damage:
    """One fault of ``object`` (a digest, or a tag that leads nowhere), reached from ``root``."""

    root: str
    object: str
    message: str

    def __str__(self) -> str:
        return f"{self.object}: {self.message}"


def check(
    repository: Repository,
    references: Iterable[str] = (),
    *,
    referrers: bool = True,
    look: Callable[[Descriptor, Iterator[bytes]], object] = lambda _blob, _chunks: None,
) -> tuple[Damage, ...]:
    """Return what is wrong with the images behind ``references``, by default behind every tag.

    Blobs are read one after the other, each once however many images share it; ``look`` may take
    what it wants to see from the front of one, the rest is read all the same. Raises:
    TransferError when the registry cannot be reached; DocumentError when the list of tags itself
    is broken.
    """
    checker = _Checker(repository, referrers=referrers, look=look)
    for reference in tuple(references) or repository.tags():
        checker.root(reference)
    return tuple(checker.damage)


class _Checker:
    def __init__(
        self,
        repository: Repository,
        *,
        referrers: bool,
        look: Callable[[Descriptor, Iterator[bytes]], object],
    ) -> None:
        self._repository = repository
        self._look = look
        self._referrers = referrers
        self._seen: dict[Digest, int] = {}
        self._manifests = 0
        self.damage: list[Damage] = []

    def root(self, reference: str) -> None:
        try:
            descriptor = self._repository.resolve(reference)
        except TransferError:
            raise
        except MachineOSError as error:
            self.damage.append(Damage(reference, reference, error.message))
            return
        self._manifest(reference, descriptor, 0)

    def _manifest(self, root: str, descriptor: Descriptor, depth: int) -> None:
        if self._known(root, descriptor):
            return
        document = self._read(root, descriptor, depth)
        if document is None:
            return
        if isinstance(document, Index):
            for child in document.manifests:
                self._manifest(root, child, depth + 1)
        else:
            for child in children(document):
                self._blob(root, child)
        if self._referrers:
            for entry in self._repository.referrers(descriptor.digest):
                self._manifest(root, entry, depth + 1)

    def _read(self, root: str, descriptor: Descriptor, depth: int) -> Manifest | Index | None:
        self._manifests += 1
        try:
            if depth > MAX_DEPTH or self._manifests > MAX_MANIFESTS:
                raise VerificationError("is one of too many manifests, or too deep")
            _, data = self._repository.manifest(str(descriptor.digest))
            if len(data) != descriptor.size:
                raise VerificationError(f"has {len(data)} bytes, expected {descriptor.size}")
            name = f"{self._repository.name}@{descriptor.digest}"
            return parse_document(data, name=name, media_type=descriptor.media_type)
        except TransferError:
            raise
        except MachineOSError as error:
            self._add(root, descriptor.digest, error.message)
            return None

    def _blob(self, root: str, descriptor: Descriptor) -> None:
        if self._known(root, descriptor):
            return
        try:
            with self._repository.open_blob(descriptor) as chunks:
                self._look(descriptor, chunks)
                for _ in chunks:
                    pass
        except TransferError:
            raise
        except MachineOSError as error:
            self._add(root, descriptor.digest, error.message)

    def _known(self, root: str, descriptor: Descriptor) -> bool:
        size = self._seen.get(descriptor.digest)
        if size is None:
            self._seen[descriptor.digest] = descriptor.size
            return False
        if size != descriptor.size:
            self._add(root, descriptor.digest, f"is given two sizes, {size} and {descriptor.size}")
        return True

    def _add(self, root: str, digest: Digest, message: str) -> None:
        self.damage.append(Damage(root, str(digest), message))
