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
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

from machineos.core.digest import Digest
from machineos.core.idrange import FIRST_GUEST, LAST_ID, RANGE, needs_range
from machineos.core.jsondoc import decode_json
from machineos.document.product import rules
from machineos.document.product.artifacts import MAX_SMALL
from machineos.document.product.install import MAX_INSTALL, Storage, Target
from machineos.document.verify.published import VerifiedInstall, verify_install
from machineos.errors import ConflictError, DocumentError, Fault, PolicyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from uuid import UUID

SYSTEM_FILE = "manifest.yaml"
VERSION = 1
MAX_MANIFESTS = 64
MAX_SYSTEM = 1 << 20
FIRST_ID = 100_000
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class SystemTarget:
    """A target and the document (hex sha256) that it comes from."""

    target: Target
    source: str


@dataclass(frozen=True, slots=True)
class SystemStorage:
    """A volume and the document (hex sha256) that it comes from."""

    storage: Storage
    source: str


@dataclass(frozen=True, slots=True)
class System:
    """Everything that a machine runs, and for which product."""

    product: str
    publisher: UUID
    targets: tuple[SystemTarget, ...]
    storage: tuple[SystemStorage, ...]
    manifests: tuple[str, ...]

    def target(self, name: str) -> Target | None:
        """Return the target called ``name``, None when there is none."""
        return next((t.target for t in self.targets if t.target.service_name == name), None)

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups that need an id range: of targets first, then of volumes, each once."""
        names = [entry.target.nsgroup for entry in self.targets]
        names += [entry.storage.nsgroup for entry in self.storage]
        return tuple(dict.fromkeys(name for name in names if needs_range(name)))


class IdMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first host id of a group's range."""

    name: str = msgspec.field(name="idmap-name")
    hostid: int


class SystemFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is stored: the documents in the order they came (hex sha256), and the id ranges."""

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
        raise DocumentError("system", [Fault("manifests", 0, "is empty: nothing is installed")])
    _check_product(verified)
    targets: dict[str, SystemTarget] = {}
    volumes: dict[str, SystemStorage] = {}
    for document in verified:
        install = document.install
        if install.update_type == "complete":
            targets, volumes = {}, {}
        # What is replaced moves to the end: so the order depends only on what is left.
        for target in install.targets:
            targets.pop(target.service_name, None)
            targets[target.service_name] = SystemTarget(target, document.sha256)
        for item in install.storage or ():
            volumes.pop(item.label, None)
            volumes[item.label] = SystemStorage(item, document.sha256)
    used = {entry.source for entry in targets.values()}
    used |= {entry.source for entry in volumes.values()}
    system = System(
        product=verified[-1].install.product,
        publisher=verified[-1].publisher.product,
        targets=tuple(targets.values()),
        storage=tuple(volumes.values()),
        manifests=_latest_order(verified, used),
    )
    _check_together(system)
    return system


def assign_idmaps(existing: Mapping[str, int], groups: Iterable[str]) -> dict[str, int]:
    """Return the first host id of each group: ``existing`` unchanged, then the new ones.

    Ranges have ``RANGE`` ids; a new group gets the lowest free one from ``FIRST_ID`` in steps of
    ``RANGE``. The range of a group that is not in use now stays taken: it owns files.

    Raises: ConflictError when existing ranges overlap or are out of bounds, or none is free.
    """
    result = dict(existing)
    taken = sorted(result.values())
    for first in taken:
        if not FIRST_GUEST <= first <= LAST_ID - RANGE + 1:
            raise ConflictError(f"id range {first} is outside {FIRST_GUEST} to {LAST_ID}")
    for low, high in pairwise(taken):
        if high - low < RANGE:
            raise ConflictError(f"id ranges {low} and {high} overlap")
    free = _free_ranges(taken)
    for group in groups:
        if group in result or not needs_range(group):
            continue
        found = next(free, None)
        if found is None:
            raise ConflictError(f"no id range is free for group {group!r:.80}")
        result[group] = found
    return result


def system_file(system: System, idmaps: Mapping[str, int]) -> SystemFile:
    """Return what to store for ``system``. Raises: ConflictError (a group without a range)."""
    missing = [group for group in system.groups if group not in idmaps]
    if missing:
        raise ConflictError(f"group {missing[0]!r:.80} has no id range")
    return SystemFile(
        version=VERSION,
        manifests=system.manifests,
        uidmaps=tuple(IdMap(name, hostid) for name, hostid in idmaps.items()),
    )


def parse_system(data: bytes, *, name: str = SYSTEM_FILE) -> SystemFile:
    """Return a stored system file. Raises: DocumentError with every fault."""
    stored = decode_json(data, SystemFile, name=name, limit=MAX_SYSTEM)
    faults: list[Fault] = []
    if stored.version != VERSION:
        faults.append(Fault("version", 0, f"is {stored.version}, only {VERSION} is known"))
    if not 1 <= len(stored.manifests) <= MAX_MANIFESTS:
        faults.append(Fault("manifests", 0, f"has not between 1 and {MAX_MANIFESTS} entries"))
    for index, text in enumerate(stored.manifests):
        if not _SHA256.fullmatch(text):
            faults.append(Fault(f"manifests[{index}]", 0, f"{text[:80]!r} is not a sha256 in hex"))
        if text in stored.manifests[:index]:
            faults.append(Fault(f"manifests[{index}]", 0, "is there twice"))
    for index, entry in enumerate(stored.uidmaps):
        path = f"uidmaps[{index}].idmap-name"
        if not re.fullmatch(rules.GROUP, entry.name) or not needs_range(entry.name):
            faults.append(Fault(path, 0, f"{entry.name[:80]!r} is not a group name"))
        if any(entry.name == other.name for other in stored.uidmaps[:index]):
            faults.append(Fault(path, 0, f"{entry.name[:80]!r} is there twice"))
    try:
        assign_idmaps({str(i): entry.hostid for i, entry in enumerate(stored.uidmaps)}, ())
    except ConflictError as error:
        faults.append(Fault("uidmaps", 0, error.message))
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
    for sha256 in stored.manifests:
        document, signature, certificate = document_files(sha256)
        data = read(document, MAX_INSTALL)
        Digest("sha256", sha256).check(data, document)
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
        while candidate < first + RANGE and candidate <= LAST_ID:
            candidate += RANGE


def _check_product(verified: Sequence[VerifiedInstall]) -> None:
    first = verified[0]
    for document in verified[1:]:
        ours, other = first.publisher.product, document.publisher.product
        if ours != other:
            raise PolicyError(f"manifest {document.sha256} is of product {other}, not of {ours}")
        name, other_name = first.install.product, document.install.product
        if name != other_name:
            raise PolicyError(
                f"manifest {document.sha256} is for {other_name!r}, the machine is {name!r}"
            )


def _check_together(system: System) -> None:
    """Raise DocumentError when the merged whole breaks a rule that no single document breaks."""
    targets = [entry.target for entry in system.targets]
    volumes = [entry.storage for entry in system.storage]
    found = [
        *rules.storage(volumes),
        *rules.targets(targets),
        *rules.labels(targets, volumes),
    ]
    if found:
        raise DocumentError(
            "the manifests together",
            [Fault(path, 0, message) for path, message in found],
            hint="a partial update must fit to what is installed; publish a complete one",
        )


def _latest_order(verified: Sequence[VerifiedInstall], used: set[str]) -> tuple[str, ...]:
    """Return the documents that still count, each at the place where it was applied last."""
    latest = dict.fromkeys(reversed([document.sha256 for document in verified]))
    return tuple(sha256 for sha256 in reversed(latest) if sha256 in used)
