"""What the initrd may hand to mosd. It was verified before; this is that nothing was mixed up."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from machineos.core.digest import Digest
from machineos.core.idrange import FIRST_GUEST, LAST_ID, RANGE, needs_range
from machineos.core.word import RootHash
from machineos.document.model.names import Label, ServiceName
from machineos.document.rules.rule import Rule
from machineos.document.rules.storage import group_problem
from machineos.errors import DigestError, VerificationError
from machineos.oci.model.atomfs import root_hash_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from machineos.document.rules.rule import Gate
    from machineos.oci.model.documents import Manifest

    Found = Iterator[tuple[str, str]]

_KEY = re.compile("[0-9a-f]{64}")
_MOSD: tuple[Gate, ...] = ("mosd",)


class Handed(msgspec.Struct, frozen=True):
    """One service of a hand-over; ``digests`` by the path of each within it."""

    name: str
    digests: Mapping[str, str]
    root_hash: str
    nsgroup: str
    hostid: int


class Borrowed(msgspec.Struct, frozen=True):
    """What a service of ``group`` mounts: the volume ``label`` of the group ``owner``."""

    path: str
    label: str
    owner: str
    group: str


class Mounted(msgspec.Struct, frozen=True):
    """The image manifest in the store, and what was handed over about it."""

    manifest: Manifest
    config: Digest
    layer: Digest
    root_hash: RootHash


def _each(services: Sequence[Handed]) -> Iterator[tuple[str, Handed]]:
    for index, service in enumerate(services):
        yield f"services[{index}]", service


def _name(services: Sequence[Handed]) -> Found:
    for path, service in _each(services):
        problem = ServiceName.problem(service.name)
        if problem:
            yield f"{path}.name", problem


def _once(services: Sequence[Handed]) -> Found:
    seen: dict[str, str] = {}
    for path, service in _each(services):
        first = seen.setdefault(service.name, path)
        if first != path:
            yield f"{path}.name", f"{service.name[:80]!r} is the name of {first} already"


def _digest(services: Sequence[Handed]) -> Found:
    for path, service in _each(services):
        for key, text in service.digests.items():
            try:
                Digest.parse(text)
            except DigestError as error:
                yield f"{path}.{key}", error.message


def _root_hash(services: Sequence[Handed]) -> Found:
    for path, service in _each(services):
        problem = RootHash.problem(service.root_hash)
        if problem:
            yield f"{path}.layer.root_hash", problem


def _ids(services: Sequence[Handed]) -> Found:
    for path, service in _each(services):
        if not needs_range(service.nsgroup):
            continue
        if service.hostid < FIRST_GUEST:
            yield f"{path}.hostid", f"{service.hostid} is among the host's own ids"
        elif service.hostid > LAST_ID - RANGE + 1:
            yield f"{path}.hostid", f"{service.hostid} leaves no room for {RANGE} ids"


def _labels(labels: Sequence[str]) -> Found:
    for index, label in enumerate(labels):
        problem = Label.problem(label)
        if problem:
            yield f"volumes[{index}].label", problem


def _groups(mounts: Sequence[Borrowed]) -> Found:
    for mount in mounts:
        problem = group_problem(mount.label, mount.owner, mount.group)
        if problem:
            yield mount.path, problem


def _key(text: str) -> Found:
    if not _KEY.fullmatch(text):
        yield "volumes_key", f"{text[:80]!r} is no key: 32 bytes in hexadecimal"


def _same_config(mounted: Mounted) -> Found:
    found = mounted.manifest.config.digest
    if found != mounted.config:
        yield "", f"the image's configuration is {found}, not {mounted.config}"


def _same_layer(mounted: Mounted) -> Found:
    handed = (mounted.layer, mounted.root_hash)
    for layer in mounted.manifest.layers:
        try:
            found = (layer.digest, root_hash_of(layer))
        except VerificationError as error:
            yield "", error.message
            continue
        if found != handed:
            yield "", "the image's layer is not the one handed over"


KEY = Rule("handover-key", "Volumes are locked for a key of 32 bytes.", _MOSD, _key)
RULES: tuple[Rule[Sequence[Handed]], ...] = (
    Rule("handover-name", "A service has the name of a target.", _MOSD, _name),
    Rule("handover-once", "No two services have the same name.", _MOSD, _once),
    Rule("handover-digest", "What is handed over is named by digests.", _MOSD, _digest),
    Rule("handover-root-hash", "A layer has a root hash.", _MOSD, _root_hash),
    Rule("handover-ids", "Own ids are not those of the host.", _MOSD, _ids),
)
LABELS: Rule[Sequence[str]] = Rule(
    "handover-label", "A volume has a label that a file system can have.", _MOSD, _labels
)
GROUPS: Rule[Sequence[Borrowed]] = Rule(
    "handover-group",
    "A volume that names an nsgroup is mounted by its services only.",
    _MOSD,
    _groups,
)
IMAGE: tuple[Rule[Mounted], ...] = (
    Rule("handover-config", "The configuration is the one handed over.", _MOSD, _same_config),
    Rule("handover-layer", "The layer is the one handed over.", _MOSD, _same_layer),
)
