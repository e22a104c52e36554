"""What a machine runs: the verified manifests it has, merged, and the id ranges of their groups.

Owns the merge rule and the system file ``manifest.yaml`` of the configuration store. Invariants:

- Targets and volumes are always computed from documents whose signatures were just checked; the
  system file names those documents, in the order they came, and never repeats what they say. So
  whoever can write to ``/config`` cannot mix or drop targets of a document (a defect of the
  predecessor, section 2.3 of its formats); leaving out whole documents is what generations and the
  floor in the TPM are for.
- No two groups ever share an id, and a group keeps its range for good, because files on volumes
  belong to it.

The system file is written as JSON, which is YAML too, so the initrd reads it without a YAML parser.
Pure: whoever reads the store hands its files in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from machineos.core.digest import Digest
from machineos.core.idrange import LAST_ID, RANGE, needs_range
from machineos.core.jsondoc import decode_json
from machineos.core.word import DocumentId
from machineos.document.model.limits import (
    FIRST_ID,
    MAX_INSTALL,
    MAX_SMALL,
)
from machineos.document.model.limits import MAX_SYSTEM as MAX_SYSTEM
from machineos.document.model.names import GroupName, Label, ProductName, ServiceName
from machineos.document.rules.product import (
    BOOTS,
    KNOWN_VERSION,
    SAME_NAME,
    SAME_PUBLISHER,
    Owned,
    Pair,
)
from machineos.document.rules.registry import judge
from machineos.document.rules.subject import together
from machineos.document.rules.system import COUNT, FREE, GIVEN, RANGES, RULES, Given, Stored
from machineos.document.verify.published import verify_install
from machineos.errors import DocumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

    from machineos.document.model.install import Storage, Target
    from machineos.document.verify.published import VerifiedInstall

SYSTEM_FILE = "manifest.yaml"
VERSION = 1
_TOGETHER = "the manifests together"


class SystemTarget(msgspec.Struct, frozen=True):
    """A target and the document that it comes from."""

    target: Target
    source: DocumentId


class SystemStorage(msgspec.Struct, frozen=True):
    """A volume and the document that it comes from."""

    storage: Storage
    source: DocumentId


class System(msgspec.Struct, frozen=True):
    """Everything that a machine runs, and for which product."""

    product: ProductName
    publisher: UUID
    targets: tuple[SystemTarget, ...]
    storage: tuple[SystemStorage, ...]
    manifests: tuple[DocumentId, ...]

    def target(self, name: str) -> Target | None:
        """Return the target called ``name``, None when there is none."""
        return next((t.target for t in self.targets if t.target.service_name == name), None)

    @property
    def groups(self) -> tuple[GroupName, ...]:
        """The groups that need an id range: of targets first, then of volumes, each once."""
        names = [entry.target.nsgroup for entry in self.targets]
        names += [entry.storage.nsgroup for entry in self.storage]
        return tuple(dict.fromkeys(GroupName(name) for name in names if needs_range(name)))


class IdMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first host id of a group's range."""

    name: str = msgspec.field(name="idmap-name")
    hostid: int


class SystemFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is stored: the documents in the order they came, and the id ranges.

    Everything is as it is written here; ``parse_system`` judges it, ``load_verified`` reads it.
    """

    version: int
    manifests: tuple[str, ...]
    uidmaps: tuple[IdMap, ...] = ()

    @property
    def idmaps(self) -> dict[str, int]:
        """The ranges as ``assign_idmaps`` takes them."""
        return {entry.name: entry.hostid for entry in self.uidmaps}

    def to_bytes(self) -> bytes:
        """Return the file's content, always the same for the same value."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n"


def merge(verified: Sequence[VerifiedInstall]) -> System:
    """Return what the documents mean together, applied in order.

    A complete one replaces all targets and volumes; a partial one replaces those it names and adds
    the others. ``manifests`` of the result leaves out the documents of which nothing is left:
    merging just those gives the same system.

    Raises: PolicyError (documents of two products), DocumentError (no document, or what they say
    together breaks a rule: a port or address taken twice, a volume that is nowhere defined).
    """
    if not verified:
        raise DocumentError(_TOGETHER, COUNT.faults(Stored((), ())))
    _check_product(verified)
    targets: dict[ServiceName, SystemTarget] = {}
    volumes: dict[Label, SystemStorage] = {}
    for document in verified:
        install = document.install
        if install.update_type == "complete":
            targets, volumes = {}, {}
        # What is replaced moves to the end: so the order depends only on what is left.
        for target in install.targets:
            targets.pop(target.name, None)
            targets[target.name] = SystemTarget(target, document.sha256)
        for item in install.storage or ():
            volumes.pop(item.name, None)
            volumes[item.name] = SystemStorage(item, document.sha256)
    used = {entry.source for entry in targets.values()}
    used |= {entry.source for entry in volumes.values()}
    merged = System(
        product=verified[-1].install.name,
        publisher=verified[-1].publisher.product,
        targets=tuple(targets.values()),
        storage=tuple(volumes.values()),
        manifests=_latest_order(verified, used),
    )
    _check_together(merged)
    return merged


def require_bootable(found: System) -> None:
    """Raise PolicyError unless there is what a machine starts from."""
    targets = [entry.target for entry in found.targets]
    BOOTS.require(together(found.product, targets, ()), _TOGETHER)


def assign_idmaps(existing: Mapping[str, int], groups: Iterable[str]) -> dict[str, int]:
    """Return the first host id of each group: ``existing`` unchanged, then the new ones.

    Ranges have ``RANGE`` ids; a new group gets the lowest free one from ``FIRST_ID`` in steps of
    ``RANGE``. The range of a group that is not in use now stays taken: it owns files.

    Raises: ConflictError when existing ranges overlap or are out of bounds, or none is free.
    """
    result = dict(existing)
    for rule in RANGES:
        rule.require(Stored((), tuple(result.items())), SYSTEM_FILE)
    free = _free_ranges(sorted(result.values()))
    for group in groups:
        if group in result or not needs_range(group):
            continue
        found = next(free, -1)
        FREE.require(Given(group, found), SYSTEM_FILE)
        result[group] = found
    return result


def system_file(found: System, idmaps: Mapping[str, int]) -> SystemFile:
    """Return what to store for a system.

    Raises: ConflictError (a group without a range), DocumentError (too many documents).
    """
    for group in found.groups:
        GIVEN.require(Given(group, idmaps.get(group, -1)), SYSTEM_FILE)
    faults = COUNT.faults(Stored(found.manifests, ()))
    if faults:
        raise DocumentError(_TOGETHER, faults, hint="publish a complete manifest")
    return SystemFile(
        version=VERSION,
        manifests=tuple(str(name) for name in found.manifests),
        uidmaps=tuple(IdMap(str(name), hostid) for name, hostid in idmaps.items()),
    )


def parse_system(data: bytes, *, name: str = SYSTEM_FILE) -> SystemFile:
    """Return a stored system file. Raises: DocumentError with every fault."""
    stored = decode_json(data, SystemFile, name=name, limit=MAX_SYSTEM)
    ranges = tuple((entry.name, entry.hostid) for entry in stored.uidmaps)
    subject = Stored(stored.manifests, ranges)
    faults = KNOWN_VERSION.faults(stored.version)
    faults += [fault for rule in RULES for fault in rule.faults(subject)]
    if faults:
        raise DocumentError(name, faults)
    return stored


def document_files(sha256: str) -> tuple[str, str, str]:
    """Return the file names of a document, its signature, and its certificate."""
    return f"{sha256}.json", f"{sha256}.json.signed", f"{sha256}.pem"


def load_verified(
    read: Callable[[str, int], bytes],
    stored: SystemFile,
    *,
    ca_pem: bytes,
    at: datetime | None,
    product: UUID | None,
) -> tuple[VerifiedInstall, ...]:
    """Return the documents that ``stored`` names, each verified again from its three files.

    ``read(name, limit)`` returns the content of a file of the configuration store.

    Raises: MissingError, DigestError (a document is not the one that its name says),
    SignatureError, PolicyError, DocumentError.
    """
    result = []
    for text in stored.manifests:
        name = DocumentId(text)
        document, signature, certificate = document_files(name)
        data = read(document, MAX_INSTALL)
        Digest("sha256", name).check(data, document)
        result.append(
            verify_install(
                data,
                read(signature, MAX_SMALL),
                read(certificate, MAX_SMALL),
                ca_pem=ca_pem,
                at=at,
                product=product,
            )
        )
    return tuple(result)


def _free_ranges(taken: Sequence[int]) -> Iterator[int]:
    """Yield the first ids of free ranges, lowest first; ``taken`` is sorted and disjoint."""
    candidate = FIRST_ID
    for first in (*taken, LAST_ID + 1):
        while candidate + RANGE <= first:
            yield candidate
            candidate += RANGE
        while candidate < first + RANGE:
            candidate += RANGE


def _check_product(verified: Sequence[VerifiedInstall]) -> None:
    first = verified[0]
    ours = Owned(first.publisher.product, first.install.product)
    for document in verified[1:]:
        other = Owned(document.publisher.product, document.install.product)
        for rule in (SAME_PUBLISHER, SAME_NAME):
            rule.require(Pair(other, ours), f"manifest {document.sha256}")


def _check_together(found: System) -> None:
    """Raise DocumentError when the merged whole breaks a rule that no single document breaks."""
    targets = [entry.target for entry in found.targets]
    volumes = [entry.storage for entry in found.storage]
    faults = judge(together(found.product, targets, volumes))
    if faults:
        raise DocumentError(
            _TOGETHER,
            faults,
            hint="a partial update must fit to what is installed; publish a complete one",
        )


def _latest_order(
    verified: Sequence[VerifiedInstall], used: set[DocumentId]
) -> tuple[DocumentId, ...]:
    """Return the documents that still count, each at the place where it was applied last."""
    latest = dict.fromkeys(reversed([document.sha256 for document in verified]))
    return tuple(sha256 for sha256 in reversed(latest) if sha256 in used)
