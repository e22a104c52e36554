"""What the initrd hands to mosd: ``/run/machineos/boot.json``.

The initrd verified the signatures; this document names by digest what it verified, and mosd checks
every byte it reads from the store against it. ``boot`` writes and ``service`` reads it, and those
two never import each other. Unknown keys and versions are errors. What is judged stands in
strings, as in ``document.model.install``; who needs one that was judged asks for it by its type.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from machineos.core.digest import Digest
from machineos.core.idrange import RANGE, IdRange, needs_range
from machineos.core.jsondoc import decode_json
from machineos.core.serviceid import ServiceId
from machineos.core.word import RootHash
from machineos.document.model.install import Mount, Network
from machineos.document.model.names import Label
from machineos.document.rules.handover import GROUPS, KEY, LABELS, RULES, Borrowed, Handed
from machineos.document.rules.product import KNOWN_VERSION
from machineos.errors import DocumentError

VERSION = 1
MAX_SIZE = 4 << 20


class Layer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The one layer of an image: the blob in the store and what dm-verity needs to open it.

    ``signature`` is the path of the PKCS#7 signature of ``root_hash``. Both paths are absolute, or
    relative to the store.
    """

    digest: str
    root_hash: str
    blob: str
    signature: str

    @property
    def blob_digest(self) -> Digest:
        """The digest of the blob. Raises: DigestError (not after ``parse_handover``)."""
        return Digest.parse(self.digest)

    @property
    def verity_hash(self) -> RootHash:
        """The root hash. Raises: VerificationError (not after ``parse_handover``)."""
        return RootHash(self.root_hash)


class Service(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One target of the verified manifests that is not hostfs or bootkit.

    ``image`` is the digest of its OCI manifest, ``config`` that of its OCI configuration.
    ``hostid`` is the first host id of the range of its ``nsgroup`` (0 when it has none).
    """

    name: str
    version: str
    type: Literal["container", "fs-only"]
    image: str
    config: str
    layer: Layer
    network: Network
    nsgroup: str = ""
    hostid: int = 0
    storage: tuple[Mount, ...] = ()

    @property
    def id(self) -> ServiceId:
        """Its identity. Raises: DocumentError (not after ``parse_handover``)."""
        return ServiceId(self.name)

    @property
    def image_digest(self) -> Digest:
        """The digest of its manifest. Raises: DigestError (not after ``parse_handover``)."""
        return Digest.parse(self.image)

    @property
    def config_digest(self) -> Digest:
        """The digest of its configuration. Raises: DigestError (not after ``parse_handover``)."""
        return Digest.parse(self.config)

    @property
    def ids(self) -> IdRange | None:
        """The ids of its user namespace, None when it runs with those of the host."""
        return IdRange(self.hostid, RANGE) if needs_range(self.nsgroup) else None


class Volume(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A volume that services mount by its label, only those of ``nsgroup`` where it names one;
    ``size`` in MiB. One that is not persistent is empty after every boot."""

    label: str
    persistent: bool
    size: int
    nsgroup: str = ""

    @property
    def name(self) -> Label:
        """The label. Raises: VerificationError (not after ``parse_handover``)."""
        return Label(self.label)


class Handover(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole document. ``store`` is the OCI layout; ``data`` the folder for storage labels;
    ``volumes_key`` the public key (X25519, hexadecimal) that new volumes are locked for."""

    version: int
    generation: str
    product: str
    store: str
    data: str
    volumes_key: str
    services: tuple[Service, ...]
    volumes: tuple[Volume, ...] = ()


def encode_handover(handover: Handover) -> bytes:
    """Return the bytes to write."""
    return msgspec.json.encode(handover, enc_hook=str)


def parse_handover(data: bytes, *, name: str = "boot.json") -> Handover:
    """Parse and check the document; all faults at once. Raises: DocumentError."""
    handover = decode_json(data, Handover, name=name, limit=MAX_SIZE)
    faults = KNOWN_VERSION.faults(handover.version)
    if not faults:
        services = [_handed(service) for service in handover.services]
        faults = [fault for rule in RULES for fault in rule.faults(services)]
        faults += KEY.faults(handover.volumes_key)
        faults += LABELS.faults([volume.label for volume in handover.volumes])
        faults += GROUPS.faults(_borrowed(handover))
    if faults:
        raise DocumentError(name, faults)
    return handover


def _handed(service: Service) -> Handed:
    return Handed(
        name=service.name,
        digests={
            "image": service.image,
            "config": service.config,
            "layer.digest": service.layer.digest,
        },
        root_hash=service.layer.root_hash,
        nsgroup=service.nsgroup,
        hostid=service.hostid,
    )


def _borrowed(handover: Handover) -> list[Borrowed]:
    owners = {volume.label: volume.nsgroup for volume in handover.volumes}
    return [
        Borrowed(
            f"services[{number}].storage[{index}].label",
            mount.label,
            owners.get(mount.label, ""),
            service.nsgroup,
        )
        for number, service in enumerate(handover.services)
        for index, mount in enumerate(service.storage)
    ]
