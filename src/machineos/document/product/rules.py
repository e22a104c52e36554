"""The rules that every manifest keeps, whether it was written by a person or received signed.

Owns what a value may be and which values may stand together. Pure: each function takes the parts of
a document and yields (path, message) for each broken rule; the caller adds the line, if it has one.
Names become file names, unit names and volume names later, so their grammar is narrow.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from machineos.core import serviceid
from machineos.core.digest import Digest
from machineos.errors import DigestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from machineos.document.product.install import Mount, Network, Port, Storage

Found = Iterator[tuple[str, str]]
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

SERVICE_NAME = serviceid.PATTERN
VERSION = r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,63}"
GROUP = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
LABEL = r"[A-Za-z0-9][A-Za-z0-9._-]{0,35}"
PRODUCT = r"[A-Za-z0-9][A-Za-z0-9._ -]{0,127}"
RESERVED_LABELS = ("esp", "machine-config", "machine-data", "machine-scratch", "machine-store")
TYPE_OF_NAME = {"hostfs": "hostfs", "bootkit": "fs-only", "livecd": "fs-only"}
MAX_TARGETS = 512
MAX_STORAGE = 512
MAX_PORTS = 4096
MAX_PORT = 65535
MAX_DEST = 255
MAX_VOLUME = 1 << 34  # MiB: 16 PiB
MAX_IMAGE_MANIFEST = 4 << 20
PREFIXES = {4: (8, 30), 6: (16, 126)}
# A volume over one of these would hide what the container's own set-up puts there.
KERNEL_FOLDERS = ("/proc", "/sys", "/dev")


class TargetLike(Protocol):
    """What a target of manifest.yaml and one of install.json have in common."""

    @property
    def service_name(self) -> str: ...  # noqa: D102
    @property
    def version(self) -> str: ...  # noqa: D102
    @property
    def service_type(self) -> Any: ...  # noqa: ANN401, D102
    @property
    def network(self) -> Network: ...  # noqa: D102
    @property
    def nsgroup(self) -> str: ...  # noqa: D102
    @property
    def storage(self) -> tuple[Mount, ...] | None: ...  # noqa: D102


class ImageLike(Protocol):
    """What names an image: the digest and the size of its manifest."""

    @property
    def digest(self) -> str: ...  # noqa: D102
    @property
    def size(self) -> int: ...  # noqa: D102


class HeaderLike(Protocol):
    """The single values of a document."""

    @property
    def version(self) -> int: ...  # noqa: D102
    @property
    def product(self) -> str: ...  # noqa: D102


def header(document: HeaderLike) -> Found:
    """Yield the faults of version and product."""
    if document.version != 1:
        yield "version", f"is {document.version}, only 1 is known"
    yield from _shape("product", document.product, PRODUCT, "a product")


def storage(items: Sequence[Storage]) -> Found:
    """Yield the faults of the list of volumes."""
    if len(items) > MAX_STORAGE:
        yield "storage", f"has more than {MAX_STORAGE} items"
        return
    seen: dict[str, int] = {}
    for index, item in enumerate(items):
        path = f"storage[{index}]"
        yield from _shape(f"{path}.label", item.label, LABEL, "a label")
        if item.label.lower() in RESERVED_LABELS:
            yield f"{path}.label", f"{item.label!r} is reserved for the machine's own partitions"
        # Volume names are compared without case: they become labels on file systems.
        first = seen.setdefault(item.label.lower(), index)
        if first != index and item.label:
            yield f"{path}.label", f"{item.label!r} is the label of storage[{first}] already"
        yield from _group(f"{path}.nsgroup", item.nsgroup)
        if not 1 <= item.size <= MAX_VOLUME:
            yield f"{path}.size", f"{item.size} MiB is not between 1 MiB and 16 PiB"


def targets(items: Sequence[TargetLike]) -> Found:
    """Yield the faults of the list of targets, each alone and all together."""
    if not items:
        yield "targets", "is missing or empty"
    if len(items) > MAX_TARGETS:
        yield "targets", f"has more than {MAX_TARGETS} targets"
        return
    names: dict[str, int] = {}
    for index, target in enumerate(items):
        path = f"targets[{index}]"
        yield from _target(path, target)
        first = names.setdefault(target.service_name, index)
        if first != index and target.service_name:
            message = f"{target.service_name!r} is the name of targets[{first}] already"
            yield f"{path}.service_name", message
    yield from _host_ports(items)
    yield from _addresses(items)


def labels(items: Sequence[TargetLike], volumes: Sequence[Storage]) -> Found:
    """Yield the mounts whose volume is not defined."""
    known = {item.label for item in volumes}
    for index, target in enumerate(items):
        for number, mount in enumerate(target.storage or ()):
            if mount.label not in known:
                path = f"targets[{index}].storage[{number}].label"
                yield path, f"{mount.label!r:.80} is not the label of a storage item"


def image(path: str, named: ImageLike) -> Found:
    """Yield the faults of a digest and its size."""
    yield from digest(f"{path}.digest", named.digest)
    yield from size(f"{path}.size", named.size)


def digest(path: str, text: str) -> Found:
    """Yield the faults of an image digest: sha256 only, it becomes a tag and a file name."""
    try:
        if Digest.parse(text).algorithm != "sha256":
            yield path, f"{text[:80]!r} is not a sha256 digest"
    except DigestError as error:
        yield path, error.message


def size(path: str, value: int) -> Found:
    """Yield the faults of the size of an image manifest."""
    if not 1 <= value <= MAX_IMAGE_MANIFEST:
        yield path, f"{value} is not the size of an image manifest (1 to {MAX_IMAGE_MANIFEST})"


def _target(path: str, target: TargetLike) -> Found:
    name = target.service_name
    yield from _shape(f"{path}.service_name", name, SERVICE_NAME, "a service name")
    yield from _shape(f"{path}.version", target.version, VERSION, "a version")
    wanted = TYPE_OF_NAME.get(name)
    if wanted is not None and target.service_type != wanted:
        yield f"{path}.service_type", f"{name} must be {wanted}, not {target.service_type}"
    if target.service_type == "hostfs" and name != "hostfs":
        yield f"{path}.service_type", "only the target called hostfs can be hostfs"
    yield from _group(f"{path}.nsgroup", target.nsgroup)
    yield from _network(f"{path}.network", target)
    yield from _mounts(f"{path}.storage", target)


def _network(path: str, target: TargetLike) -> Found:
    network = target.network
    if target.service_type != "container" and network.type == "simple":
        yield f"{path}.type", f"a {target.service_type} target has no network of its own"
    for version, text in ((4, network.ipv4), (6, network.ipv6)):
        if not text:
            continue
        where = f"{path}.ipv{version}"
        if network.type != "simple":
            yield where, f"a network of type {network.type} takes no address"
        problem = address_problem(text, version)
        if problem:
            yield where, problem
    if network.ports and network.type != "simple":
        yield f"{path}.ports", f"a network of type {network.type} forwards no ports"
    for index, port in enumerate(network.ports or ()):
        for key, number in (("host", port.host), ("container", port.container)):
            if not 1 <= number <= MAX_PORT:
                yield f"{path}.ports[{index}].{key}", f"{number} is not a port (1 to {MAX_PORT})"


def _mounts(path: str, target: TargetLike) -> Found:
    mounts = target.storage or ()
    if mounts and target.service_type != "container":
        yield path, f"a {target.service_type} target mounts no storage"
    seen: dict[str, int] = {}
    for index, mount in enumerate(mounts):
        where = f"{path}[{index}]"
        yield from _shape(f"{where}.label", mount.label, LABEL, "a label")
        problem = _dest_problem(mount.dest)
        if problem:
            yield f"{where}.dest", problem
        first = seen.setdefault(mount.dest, index)
        if first != index and mount.dest:
            yield f"{where}.dest", f"{mount.dest!r:.80} is taken by {path}[{first}] already"


def _dest_problem(dest: str) -> str:
    if not dest.startswith("/"):
        return f"{dest!r:.80} is not an absolute path" if dest else "is missing or empty"
    if len(dest) > MAX_DEST or not dest.isascii() or not dest.isprintable() or " " in dest:
        return f"{dest!r:.80} is too long or holds white space or odd characters"
    if dest == "/" or dest.startswith("//") or posixpath.normpath(dest) != dest:
        return f"{dest!r:.80} is not the plain path of a folder below /"
    for folder in KERNEL_FOLDERS:
        if dest == folder or dest.startswith(f"{folder}/"):
            return f"{dest!r:.80} is in {folder}, which belongs to the kernel"
    return ""


def address_problem(text: str, version: int) -> str:
    """Return what is wrong with a CIDR address of this IP version, empty if nothing is."""
    interface = parse_address(text, version)
    if interface is None:
        example = "10.0.3.99/24" if version == 4 else "fd00::99/64"
        return f"{text!r:.60} is not an IPv{version} address with prefix (example: {example})"
    low, high = PREFIXES[version]
    prefix = interface.network.prefixlen
    if not low <= prefix <= high:
        return f"{text!r}: prefix /{prefix} is not between /{low} and /{high}"
    ip = interface.ip
    if ip.version == 6 and ip.ipv4_mapped is not None:
        # First: newer versions of Python say of these what they say of the address within.
        return f"{text!r} holds an IPv4 address"
    if ip == interface.network.network_address:
        return f"{text!r} is the address of the network itself"
    if version == 4 and ip == interface.network.broadcast_address:
        return f"{text!r} is the broadcast address of its network"
    if ip.is_multicast or ip.is_loopback or ip.is_unspecified or ip.is_link_local:
        return f"{text!r} is not an address that a service can have"
    if ip.is_reserved:
        return f"{text!r} is a reserved address"
    return ""


def parse_address(text: str, version: int) -> Interface | None:
    """Return the interface, None unless ``text`` is exactly ``address/prefix``."""
    if not re.fullmatch(r"[0-9A-Fa-f:.]{2,45}/[0-9]{1,3}", text):
        return None
    try:
        return ipaddress.IPv4Interface(text) if version == 4 else ipaddress.IPv6Interface(text)
    except ValueError:
        return None


def _host_ports(items: Sequence[TargetLike]) -> Found:
    seen: dict[tuple[int, str], str] = {}
    for path, port in _ports(items):
        if len(seen) > MAX_PORTS:
            yield path, f"more than {MAX_PORTS} ports are forwarded"
            return
        first = seen.setdefault((port.host, port.protocol), path)
        if first != path:
            yield f"{path}.host", f"{port.protocol} port {port.host} is taken by {first} already"


def _ports(items: Sequence[TargetLike]) -> Iterator[tuple[str, Port]]:
    for index, target in enumerate(items):
        for number, port in enumerate(target.network.ports or ()):
            yield f"targets[{index}].network.ports[{number}]", port


def _addresses(items: Sequence[TargetLike]) -> Found:
    """Yield addresses given twice, and networks that overlap without being the same."""
    for version in (4, 6):
        taken: dict[Any, str] = {}
        networks: dict[Any, str] = {}
        for index, target in enumerate(items):
            text = target.network.ipv4 if version == 4 else target.network.ipv6
            interface = parse_address(text, version)
            if interface is None:
                continue
            path = f"targets[{index}].network.ipv{version}"
            first = taken.setdefault(interface.ip, path)
            if first != path:
                yield path, f"{interface.ip} is taken by {first} already"
                continue
            for network, other in networks.items():
                if network != interface.network and network.overlaps(interface.network):
                    yield path, f"{interface.network} overlaps {network} of {other}"
                    break
            networks.setdefault(interface.network, path)


def _group(path: str, name: str) -> Found:
    if name:
        yield from _shape(path, name, GROUP, "a group name")


def _shape(path: str, text: str, pattern: str, what: str) -> Found:
    if not text:
        yield path, "is missing or empty"
    elif not re.fullmatch(pattern, text):
        yield path, f"{text[:80]!r} is not {what} ({pattern})"
