"""What to install, on which disk, for which machine: decided, nothing fetched yet.

``trust launch`` attaches a small disk labelled ``inst-data`` with ``url.txt`` (the predecessor's
format: one line) and, ours, ``disk.txt``. Nothing here is trusted; it only says where to look.
Touches nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.core.facts import Fact, Facts, Part
from machineos.core.steps import ask
from machineos.document.between.medium import (
    CA_CERTIFICATE,
    CA_KEY,
    CA_SIGNATURE,
    INDEX_FILE,
    INSTALL_KEY,
    INTEGRITY_KEY,
    LAYOUTS,
    parse_index,
)
from machineos.errors import (
    BootError,
    DocumentError,
    Fault,
    MissingError,
    StalledError,
    TransferError,
)
from machineos.install.plan import choose_disk
from machineos.install.steps import (
    ListDisks,
    LookAtUse,
    ReadFile,
    ReadKey,
    ReadLabel,
    ReadSmallDisk,
    Resolve,
    Say,
    Sleep,
    Ticks,
)
from machineos.oci.model.place import Place
from machineos.oci.model.reference import RegistryLocation
from machineos.trust.verify.chain import verify_sudi
from machineos.trust.verify.hostca import verify_host_ca

if TYPE_CHECKING:
    from uuid import UUID

    from machineos.core.secret import Secret
    from machineos.core.steps import Talk
    from machineos.host.disk.device import Disk

RUN = Path("/run/machineos")
MEDIUM = RUN / "medium"
SMALL_DISK = RUN / "install-data"
TRUST = RUN / "trust"
URL_LABEL, URL_FILE, DISK_FILE = "inst-data", "url.txt", "disk.txt"
LIMIT = 65536
NETWORK_SECONDS = 90.0
_AGAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for: a place, None for what the medium says; a disk, empty for the only one
    that fits."""

    place: Place | None
    disk: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """The product of this machine, and what its manifests are verified against."""

    product: UUID
    ca_pem: bytes


@dataclass(frozen=True, slots=True)
class HostCa:
    """The CA of this machine as the initrd made it: what its files hold."""

    private_key: Secret
    certificate: Secret
    signature: Secret


WISH: Fact[Wish] = Fact("wish")
PLACE: Fact[Place] = Fact("place")
DISK: Fact[Disk] = Fact("disk")
IDENTITY: Fact[Identity] = Fact("identity")
KEY: Fact[Secret] = Fact("configuration key")
BLOCKS_KEY: Fact[Secret] = Fact("key of the volumes' blocks")
HOST_CA: Fact[HostCa] = Fact("host CA")
BOOTED = "booted from the medium"
REACHABLE = "registry reachable"


def parse_request(text: str) -> Place:
    """Return the place in ``url.txt``: ``[docker://]host[:port]/path:tag``, and ``plain-http``
    after a space for a registry in a closed network. Raises: DocumentError."""
    words = text.split()
    if not words or words[1:] not in ([], ["plain-http"]):
        raise DocumentError(URL_FILE, [Fault("", 1, "is not: URL [plain-http]")])
    return Place.parse_remote(words[0], plain_http=bool(words[1:]))


def parse_medium(data: bytes) -> Place:
    """Return the place that the medium's index names: its own layouts.

    Raises: MissingError (it holds no manifest), DocumentError.
    """
    index = parse_index(data)
    if not index.install:
        raise MissingError(
            "this medium holds no manifest, and no disk says where to install from",
            hint="attach a disk labelled inst-data with url.txt, or build a medium with a manifest",
        )
    name, _, tag = index.install.rpartition(":")
    return Place(RegistryLocation(folder=MEDIUM / LAYOUTS), name, tag)


def shown(place: Place) -> str:
    """Return the place for people."""
    return place.url or f"the medium/{place.name}:{place.tag}"


def _check(_: Facts) -> Talk[Facts]:
    """Whether an install medium started this machine: of any other not even a disk is looked at.
    Only the initrd of a medium mounts one there."""
    try:
        yield from ask(ReadFile(MEDIUM / INDEX_FILE, LIMIT))
    except MissingError as error:
        raise BootError(
            f"this machine was not booted from an install medium: {error.message}",
            hint="start the machine that is to be installed from install.iso (mosb media build), "
            "or a virtual one with: trust launch",
        ) from error
    return Facts()


def _look(facts: Facts) -> Talk[Facts]:
    """What to install and on which disk."""
    wish = facts[WISH]
    disks = yield from ask(ListDisks())
    place, named = (wish.place, "") if wish.place is not None else (yield from _from_medium(disks))
    usage = yield from ask(LookAtUse(tuple(disk.device for disk in disks)))
    disk = choose_disk(disks, usage, wish.disk or named)
    yield from ask(Say(f"installing {shown(place)} on disk {disk.name}"))
    return Facts().plus(PLACE, place).plus(DISK, disk)


def _from_medium(disks: tuple[Disk, ...]) -> Talk[tuple[Place, str]]:
    """Return what the small disk says, else what the medium holds, and the disk that is named."""
    for disk in disks:
        if (yield from ask(ReadLabel(disk.device))) == URL_LABEL:
            step = ReadSmallDisk(disk.device, SMALL_DISK, (URL_FILE, DISK_FILE), LIMIT)
            url, named = yield from ask(step)
            if url is None:
                raise MissingError(f"the disk {disk.name}, {URL_LABEL}, has no {URL_FILE}")
            return parse_request(url), named or ""
    return parse_medium((yield from ask(ReadFile(MEDIUM / INDEX_FILE, LIMIT)))), ""


def _identify(_: Facts) -> Talk[Facts]:
    """Which machine this is; its key and its CA, as the initrd left them."""
    device = yield from ask(ReadFile(TRUST / "device.pem", LIMIT))
    sudi_ca = yield from ask(ReadFile(TRUST / "sudi-ca.pem", LIMIT))
    manifest_ca = yield from ask(ReadFile(TRUST / "manifest-ca.pem", LIMIT))
    identity = verify_sudi(device, ca_pem=sudi_ca, at=None)
    key = yield from ask(ReadKey(INSTALL_KEY))
    blocks = yield from ask(ReadKey(INTEGRITY_KEY))
    ca_key = yield from ask(ReadKey(CA_KEY))
    certificate = yield from ask(ReadKey(CA_CERTIFICATE))
    signature = yield from ask(ReadKey(CA_SIGNATURE))
    verify_host_ca(certificate.reveal(), signature.reveal(), identity)
    return (
        Facts()
        .plus(IDENTITY, Identity(identity.product, manifest_ca))
        .plus(KEY, key)
        .plus(BLOCKS_KEY, blocks)
        .plus(HOST_CA, HostCa(ca_key, certificate, signature))
    )


def _reach(facts: Facts) -> Talk[Facts]:
    """Wait for the network: an address may still be on its way. What answers, and be it with a
    refusal, is reached; a registry that stalls is not tried again."""
    place = facts[PLACE]
    if place.at.folder is not None:
        return Facts()
    deadline = (yield from ask(Ticks())) + NETWORK_SECONDS
    while True:
        try:
            yield from ask(Resolve(place))
        except StalledError:
            raise
        except TransferError as error:
            if error.status or (yield from ask(Ticks())) > deadline:
                raise
            yield from ask(Sleep(_AGAIN_SECONDS))
        else:
            return Facts()


PARTS = (
    Part("check", frozenset(), frozenset({BOOTED}), _check),
    Part("look", frozenset({WISH, BOOTED}), frozenset({PLACE, DISK}), _look),
    Part(
        "identify", frozenset({BOOTED}), frozenset({IDENTITY, KEY, BLOCKS_KEY, HOST_CA}), _identify
    ),
    Part("reach", frozenset({PLACE}), frozenset({REACHABLE}), _reach),
)
