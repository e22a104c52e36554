"""``manifest.yaml``: what a product developer writes (ImportFile).

Owns its model and the strict reader; follows seed 002 and section 2.1 of the predecessor's formats.
Invariant: a ``Source`` from ``parse_source`` keeps every rule of ``document.rules``. All faults of
a document are reported together, in document order, each with path and line: values that cannot be
read are reported and set aside, so that the rules still judge the rest. Pure.

Our additions to the predecessor's form: ``protocol`` of a port, sizes such as ``30G`` (a plain
number is MiB), digests in a ``source``, ``signed-by``, ``hardware`` (for the
bootkit, not signed with the rest).
``digest`` and ``size`` are of the image manifest that ``source`` names, as it is there: before a
conversion, when the image has tar layers.
"""

from __future__ import annotations

import msgspec

from machineos.core import yamldoc
from machineos.core.idrange import needs_range
from machineos.core.serviceid import ServiceName
from machineos.core.size import parse_size
from machineos.document.model.hardware import Hardware, Kernel, Microcode, PackageName
from machineos.document.model.install import (
    Mount,
    Network,
    NetworkType,
    Port,
    Protocol,
    ServiceType,
    Storage,
    UpdateType,
)
from machineos.document.model.limits import MAX_SOURCE
from machineos.document.rules.registry import judge
from machineos.document.rules.subject import Declaration, DeclaredTarget
from machineos.errors import DocumentError, Fault
from machineos.oci.model.reference import ImageSource

_MIB = 1 << 20
_MAX_PATH = 4096


class Mebibytes(int):
    """A size in MiB: a plain number, or a number with a unit that comes to whole MiB."""

    @classmethod
    def parse(cls, text: str) -> Mebibytes:
        """Read ``30720`` or ``30G``. Raises: ValueError."""
        size = parse_size(text)
        if text.strip().isdigit():
            return cls(size)
        if size % _MIB:
            raise ValueError(f"{text[:40]!r} is not a whole number of MiB")
        return cls(size // _MIB)


# The models take every value that has the right kind and default every one that is missing;
# the rules then say what is missing or wrong, with the same words as for a signed document.
class SourcePort(msgspec.Struct, frozen=True, kw_only=True):
    """An item of ``ports``."""

    host: int = 0
    container: int = 0
    protocol: Protocol = "tcp"


class SourceNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """A ``network``."""

    type: NetworkType = "none"
    ipv4: str = ""
    ipv6: str = ""
    ports: tuple[SourcePort, ...] | None = ()


class SourceMount(msgspec.Struct, frozen=True, kw_only=True):
    """An item of a target's ``storage``."""

    dest: str = ""
    label: str = ""


class SourceStorage(msgspec.Struct, frozen=True, kw_only=True):
    """An item of the document's ``storage``."""

    label: str = ""
    persistent: bool = False
    nsgroup: str = ""
    size: Mebibytes = Mebibytes(0)


class FileName(str):
    """The name of a file beside the document, not empty."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> FileName:
        """Read a path, as seen from the document's folder. Raises: ValueError."""
        if not text or not text.isprintable() or len(text) > _MAX_PATH:
            raise ValueError(f"{text[:60]!r} is not the name of a file")
        return cls(text)


class SourceSignature(msgspec.Struct, frozen=True, kw_only=True):
    """A ``signed-by`` in full."""

    key: FileName
    bundle: FileName = FileName("")


class SourceTarget(msgspec.Struct, frozen=True, kw_only=True):
    """An item of ``targets`` as written; ``digest`` and ``size`` are empty and 0 when not given."""

    service_name: str = ""
    source: str = ""
    version: str = ""
    service_type: ServiceType | None = None
    network: SourceNetwork | None = None
    nsgroup: str = ""
    storage: tuple[SourceMount, ...] | None = ()
    digest: str = ""
    size: int | None = None
    # Without None: a key without a value is a fault, not an image that nobody has to sign.
    signed_by: FileName | SourceSignature = msgspec.field(name="signed-by", default=FileName(""))


class SourceHardware(msgspec.Struct, frozen=True, kw_only=True):
    """The ``hardware``: what ``mosb bootkit build --manifest`` builds for."""

    kernel: Kernel = "generic"
    firmware: tuple[PackageName, ...] | None = ()
    microcode: Microcode | None = None


class _Document(msgspec.Struct, frozen=True, kw_only=True):
    version: int = 0
    product: str = ""
    update_type: UpdateType | None = None
    storage: tuple[SourceStorage, ...] | None = ()
    targets: tuple[SourceTarget, ...] | None = ()
    hardware: SourceHardware | None = None


class SignedBy(msgspec.Struct, frozen=True):
    """Whose signature an image must have: files of a public key and, where the signature is not
    with the image, of a bundle (else empty), as seen from the document's folder."""

    key: str
    bundle: str = ""


class ImageTarget(msgspec.Struct, frozen=True, kw_only=True):
    """A target with its image still named by where it is.

    ``digest`` (empty: not given) and ``size`` (None: not given) are the author's claim about it,
    ``signed_by`` (None: nobody) is what he demands of it.
    An empty ``version`` stands for the one that the image carries; only a default has it.
    ``lock_name`` is what ``manifest.lock`` calls the source where that is not what it is written
    as.
    """

    service_name: str
    source: ImageSource
    version: str
    service_type: ServiceType
    network: Network
    nsgroup: str = ""
    storage: tuple[Mount, ...] = ()
    digest: str = ""
    size: int | None = None
    lock_name: str = ""
    signed_by: SignedBy | None = None


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """The whole document; ``hardware`` None is not said."""

    version: int
    product: str
    update_type: UpdateType
    storage: tuple[Storage, ...]
    targets: tuple[ImageTarget, ...]
    hardware: Hardware | None = None


def parse_source(data: bytes, *, name: str = "manifest.yaml") -> Source:
    """Return the document. Raises: DocumentError with every fault."""
    node = yamldoc.parse_yaml(data, name=name, limit=MAX_SOURCE)
    faults: list[Fault] = []
    document = yamldoc.decode(node, _Document, faults)
    unreadable = frozenset(fault.path for fault in faults)
    if document is None and "" not in unreadable:
        document = yamldoc.decode(_without(node, unreadable, ""), _Document, [])
    if document is not None:
        faults += [
            Fault(fault.path, yamldoc.line_of(node, fault.path), fault.message, fault.rule)
            for fault in judge(_declared(document))
            if not _concerns(fault.path, unreadable) and not _follows(fault, unreadable)
        ]
    if faults:
        raise DocumentError(name, sorted(faults, key=lambda fault: fault.line))
    return _build(document)


def _declared(document: _Document) -> Declaration:
    return Declaration(
        version=document.version,
        product=document.product,
        complete=document.update_type == "complete",
        targets=tuple(
            DeclaredTarget(
                service_name=item.service_name,
                version=item.version,
                service_type=item.service_type,
                network=_network(item.network),
                nsgroup=_group(item),
                storage=_mounts(item),
                digest=item.digest or None,
                size=item.size,
                source=item.source,
            )
            for item in document.targets or ()
        ),
        storage=tuple(_storage(item) for item in document.storage or ()),
    )


def _build(document: _Document) -> Source:
    return Source(
        version=document.version,
        product=document.product,
        update_type=document.update_type or "partial",
        storage=tuple(_storage(item) for item in document.storage or ()),
        targets=tuple(
            ImageTarget(
                service_name=item.service_name,
                source=ImageSource.parse(item.source),
                version=item.version,
                service_type=item.service_type or "container",
                network=_network(item.network),
                nsgroup=_group(item),
                storage=_mounts(item),
                digest=item.digest,
                size=item.size,
                signed_by=_signed_by(item.signed_by),
            )
            for item in document.targets or ()
        ),
        hardware=_hardware(document.hardware),
    )


def _group(target: SourceTarget) -> str:
    """Return the nsgroup: a container for which none is said has one of its own, called as itself.
    Who wants the host's ids says ``none``."""
    name = target.service_name
    if target.nsgroup or target.service_type != "container" or ServiceName.problem(name):
        return target.nsgroup
    return name if needs_range(name) else f"{name}.own"


def _signed_by(given: FileName | SourceSignature) -> SignedBy | None:
    if isinstance(given, SourceSignature):
        return SignedBy(given.key, given.bundle)
    return SignedBy(given) if given else None


def _hardware(hardware: SourceHardware | None) -> Hardware | None:
    if hardware is None:
        return None
    return Hardware(
        kernel=hardware.kernel,
        firmware=hardware.firmware or (),
        microcode=hardware.microcode,
    )


def _network(network: SourceNetwork | None) -> Network:
    network = network or SourceNetwork()
    ports = tuple(
        Port(host=port.host, container=port.container, protocol=port.protocol)
        for port in network.ports or ()
    )
    return Network(type=network.type, ipv4=network.ipv4, ipv6=network.ipv6, ports=ports)


def _mounts(item: SourceTarget) -> tuple[Mount, ...]:
    return tuple(Mount(dest=mount.dest, label=mount.label) for mount in item.storage or ())


def _storage(item: SourceStorage) -> Storage:
    return Storage(
        label=item.label, persistent=item.persistent, nsgroup=item.nsgroup, size=int(item.size)
    )


def _without(node: yamldoc.Node, paths: frozenset[str], path: str) -> yamldoc.Node:
    """Return ``node`` without the values at ``paths``; a list keeps its length."""
    if isinstance(node, yamldoc.Mapping):
        items = {
            key: _without(value, paths, child)
            for key, value in node.items.items()
            if (child := f"{path}.{key}" if path else key) not in paths
        }
        return yamldoc.Mapping(items, node.line, node.key_lines)
    if isinstance(node, yamldoc.Sequence):
        nothing = yamldoc.Mapping({}, node.line)
        children = ((f"{path}[{index}]", item) for index, item in enumerate(node.items))
        return yamldoc.Sequence(
            tuple(
                nothing if child in paths else _without(item, paths, child)
                for child, item in children
            ),
            node.line,
        )
    return node


# What the rules say because of what stands in the place of a value that could not be read: by its
# key, what is said of the same target, or, of what stands in no target, of all.
_FOLLOWS: dict[str, frozenset[str]] = {
    "service_name": frozenset({"target-one-hostfs", "mount-group"}),
    "service_type": frozenset(
        {"network-own", "network-host-ids", "mount-kind", "target-type-of-name"}
    ),
    "network": frozenset({"network-host-ids"}),
    "type": frozenset({"network-own", "network-host-ids", "address-kind", "ports-kind"}),
    "nsgroup": frozenset({"network-host-ids", "mount-group"}),
    "protocol": frozenset({"port-once"}),
    "storage": frozenset({"mount-known", "mount-group"}),
    "label": frozenset({"mount-known", "mount-group"}),
}


def _follows(fault: Fault, unreadable: frozenset[str]) -> bool:
    """Whether a fault may be none once a value that could not be read is mended."""
    for path in unreadable:
        target, _, key = path.rpartition(".")
        beside = fault.path.startswith(f"{path.partition('.')[0]}.")
        everywhere = not path.startswith("targets[") or fault.rule == "port-once"
        if fault.rule in _FOLLOWS.get(key or target, ()) and (beside or everywhere):
            return True
    return False


def _concerns(path: str, unreadable: frozenset[str]) -> bool:
    """Whether ``path`` is, or is below, a value that could not be read and was reported so."""
    return any(path == bad or path.startswith((f"{bad}.", f"{bad}[")) for bad in unreadable)
