"""What ``install.json`` holds, as values: targets, networks, storage; and how it is written.

Follows the document that seed 002 prints and section 2.2 of the predecessor's formats. Names and
digests are strings here, because a document is read whole and then judged (``document.rules``), so
that all its faults are told at once; who needs one that was judged asks for it by its type
(``Target.image``, ``Target.name``, ``Storage.name``, ...).

Written form: compact JSON, keys in the order of seed 002, ``ports`` null when there are none. The
predecessor's later releases added ``storage`` (of the file and of a target), and we added
``protocol`` to a port. Each is written only when it says something (``protocol`` only for udp), so
a manifest without them is byte for byte what seed 002 shows, and the predecessor's readers, which
ignore keys they do not know, read all of ours. (They would forward a udp port as tcp.)
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from machineos.core.digest import Digest
from machineos.document.model.names import Label, ProductName, ServiceName, Version

VERSION = 1
UpdateType = Literal["complete", "partial"]
ServiceType = Literal["hostfs", "container", "fs-only"]
NetworkType = Literal["host", "none", "simple"]
Protocol = Literal["tcp", "udp"]


class Port(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A port of the host that leads to a port of the container."""

    host: int
    container: int
    protocol: Protocol = "tcp"


class Network(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a target is connected; addresses are CIDR (``10.0.3.99/24``) or empty."""

    type: NetworkType
    ipv4: str = ""
    ipv6: str = ""
    ports: tuple[Port, ...] | None = ()


class Mount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A storage item, by label, and where the target sees it."""

    dest: str
    label: str

    @property
    def name(self) -> Label:
        """The label. Raises: VerificationError (not once it was judged)."""
        return Label(self.label)


class Storage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A volume that targets can mount; ``size`` in MiB."""

    label: str
    persistent: bool
    nsgroup: str
    size: int

    @property
    def name(self) -> Label:
        """The label. Raises: VerificationError (not once it was judged)."""
        return Label(self.label)


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing to run or to mount; ``digest`` and ``size`` are those of its image manifest."""

    service_name: str
    version: str
    service_type: ServiceType
    network: Network
    nsgroup: str
    digest: str
    size: int
    storage: tuple[Mount, ...] | None = ()

    @property
    def name(self) -> ServiceName:
        """The name of the service. Raises: VerificationError (not once it was judged)."""
        return ServiceName(self.service_name)

    @property
    def release(self) -> Version:
        """The version. Raises: VerificationError (not once it was judged)."""
        return Version(self.version)

    @property
    def image(self) -> Digest:
        """The digest of the image manifest. Raises: DigestError."""
        return Digest.parse(self.digest)

    @property
    def tag(self) -> str:
        """The tag of the image in the repository ``mos``."""
        return self.image.hex


class Install(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole document."""

    version: int
    product: str
    targets: tuple[Target, ...]
    update_type: UpdateType
    storage: tuple[Storage, ...] | None = ()

    @property
    def name(self) -> ProductName:
        """The name of the product. Raises: VerificationError (not once it was judged)."""
        return ProductName(self.product)

    @property
    def is_complete(self) -> bool:
        """Whether it stands for all that a machine runs."""
        return self.update_type == "complete"

    def target(self, name: str) -> Target | None:
        """Return the target called ``name``, None when there is none."""
        return next((target for target in self.targets if target.service_name == name), None)

    def to_bytes(self) -> bytes:
        """Return the document as it is signed: always the same bytes for the same value."""
        body: dict[str, Any] = {"version": self.version, "product": self.product}
        if self.storage:
            body["storage"] = [msgspec.structs.asdict(item) for item in self.storage]
        body["targets"] = [_target_json(target) for target in self.targets]
        body["update_type"] = self.update_type
        return msgspec.json.encode(body)


def _target_json(target: Target) -> dict[str, Any]:
    body: dict[str, Any] = {
        "service_name": target.service_name,
        "version": target.version,
        "service_type": target.service_type,
        "network": _network_json(target.network),
        "nsgroup": target.nsgroup,
        "digest": target.digest,
    }
    if target.storage:
        body["storage"] = [msgspec.structs.asdict(item) for item in target.storage]
    body["size"] = target.size
    return body


def _network_json(network: Network) -> dict[str, Any]:
    return {
        "type": network.type,
        "ipv4": network.ipv4,
        "ipv6": network.ipv6,
        "ports": [_port_json(port) for port in network.ports] if network.ports else None,
    }


def _port_json(port: Port) -> dict[str, Any]:
    body: dict[str, Any] = {"host": port.host, "container": port.container}
    if port.protocol != "tcp":
        body["protocol"] = port.protocol
    return body
