"""What the installer asks of its machine beside the steps of ``state``. Touches nothing.

``Host`` is all that an installation needs of the world: the real one is ``host``, and a machine in
memory that can lose its power passes the same tests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from machineos.core.digest import Digest
from machineos.core.facts import Fact
from machineos.core.secret import Secret
from machineos.core.steps import Step
from machineos.core.word import RootHash
from machineos.document.verify.published import Fetched
from machineos.host.disk.device import Disk, Partition
from machineos.host.disk.usage import Usage
from machineos.state.config import steps as config
from machineos.state.images import steps as images
from machineos.state.slots import steps as slots
from machineos.state.store import steps as store
from machineos.state.volumes import steps as volumes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from uuid import UUID

    from machineos.document.product.install import Target
    from machineos.host.disk.sfdisk import PartitionSpec
    from machineos.oci.model.documents import Manifest
    from machineos.oci.model.place import Place
    from machineos.trust.verify.chain import Publisher

Signatures = tuple[tuple[Digest, RootHash, bytes], ...]  # layer, root hash, PKCS#7 of it


@dataclass(frozen=True, slots=True)
class Inspected:
    """A verified image manifest, and the publisher's signature of each layer's root hash that was
    found."""

    image: Manifest
    signatures: Signatures


@dataclass(frozen=True, slots=True)
class Staged:
    """A verified manifest and its images, all of it in memory."""

    fetched: Fetched
    images: tuple[tuple[Target, Inspected], ...]

    @property
    def size(self) -> int:
        """Bytes of all images."""
        return sum(size_of(inspected.image) for _, inspected in self.images)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes that a file system in memory takes, and bytes of memory that nobody uses."""

    free: int
    unused: int


STAGED: Fact[Staged] = Fact(store.STAGED)


def size_of(image: Manifest) -> int:
    """Return the bytes of configuration and layers."""
    return image.config.size + sum(layer.size for layer in image.layers)


@dataclass(frozen=True, slots=True)
class Say(Step[None]):
    """Show a line to whoever watches."""

    text: str


@dataclass(frozen=True, slots=True)
class Now(Step[datetime]):
    """The time of day."""


@dataclass(frozen=True, slots=True)
class Ticks(Step[float]):
    """Seconds that never go back."""


@dataclass(frozen=True, slots=True)
class Sleep(Step[None]):
    """Wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class ListDisks(Step[tuple[Disk, ...]]):
    """The disks of this machine."""


@dataclass(frozen=True, slots=True)
class LookAtUse(Step[Usage]):
    """What uses the disks ``nodes``."""

    nodes: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class ListPartitions(Step[tuple[Partition, ...]]):
    """The partitions of this machine that have a name and a device node."""


@dataclass(frozen=True, slots=True)
class ReadLabel(Step[str]):
    """The label of the file system on a device, empty when there is none."""

    device: Path


@dataclass(frozen=True, slots=True)
class ReadSmallDisk(Step[tuple[str | None, ...]]):
    """The texts of the files ``names`` on the FAT of ``device``, without space at their ends; None
    for one that is not there. It is mounted at ``folder`` meanwhile."""

    device: Path
    folder: Path
    names: tuple[str, ...]
    limit: int


@dataclass(frozen=True, slots=True)
class ReadFile(Step[bytes]):
    """The content of a regular file of at most ``limit`` bytes."""

    path: Path
    limit: int


@dataclass(frozen=True, slots=True)
class ReadKey(Step[Secret]):
    """A secret that the initrd left in root's keyring."""

    name: str


@dataclass(frozen=True, slots=True)
class RevokeKey(Step[None]):
    """Make that secret unreadable for good."""

    name: str


@dataclass(frozen=True, slots=True)
class Resolve(Step[None]):
    """Ask the registry of a place for its tag once."""

    place: Place


@dataclass(frozen=True, slots=True)
class MakeStaging(Step[Memory]):
    """Make a folder in memory."""

    folder: Path


@dataclass(frozen=True, slots=True)
class FetchManifest(Step[Fetched]):
    """Read the manifest of a place, verified."""

    place: Place
    ca_pem: bytes = field(repr=False)
    at: datetime
    product: UUID


@dataclass(frozen=True, slots=True)
class InspectImage(Step[Inspected]):
    """Read and check the image manifest of a target, and find its root hash signatures."""

    place: Place
    target: Target
    publisher: Publisher


@dataclass(frozen=True, slots=True)
class FetchImage(Step[None]):
    """Copy the image of a target into the layout ``into``, hashed on the way, and these signatures
    with it. What others attached to the image could be any number of any size, and stays."""

    place: Place
    target: Target
    signatures: Signatures
    into: Path


@dataclass(frozen=True, slots=True)
class WriteTable(Step[None]):
    """Replace the partition table of a disk, durably: everything on the disk is lost."""

    point: ClassVar[str] = "table"
    after: ClassVar[frozenset[str]] = frozenset({STAGED})
    device: Path
    partitions: tuple[PartitionSpec, ...]

    @property
    def where(self) -> str:
        """The disk."""
        return self.device.name


@dataclass(frozen=True, slots=True)
class MakeGroup(Step[None]):
    """Make a volume group on ``device``, whose blocks ``key`` authenticates, durably; what was on
    it is lost."""

    point: ClassVar[str] = "volume-group"
    after: ClassVar[frozenset[str]] = frozenset({volumes.TABLE})
    name: str
    device: Path
    key: Secret

    @property
    def where(self) -> str:
        """The group."""
        return self.name


@dataclass(frozen=True, slots=True)
class TrustPublisher(Step[None]):
    """Have the kernel trust a publisher's certificate (DER), which one that it trusts vouches
    for."""

    certificate: bytes = field(repr=False)


class Host(
    slots.SlotHost,
    config.ConfigHost,
    images.ImageHost,
    store.StoreHost,
    volumes.VolumeHost,
    Protocol,
):
    """The machine that an installation runs on. Each method is what the step of its name says."""

    def say(self, text: str) -> None:
        """See ``Say``."""
        ...

    def now(self) -> datetime:
        """See ``Now``."""
        ...

    def ticks(self) -> float:
        """See ``Ticks``."""
        ...

    def sleep(self, seconds: float) -> None:
        """See ``Sleep``."""
        ...

    def list_disks(self) -> tuple[Disk, ...]:
        """See ``ListDisks``."""
        ...

    def look_at_use(self, nodes: tuple[Path, ...]) -> Usage:
        """See ``LookAtUse``. Raises: OSError, ToolError."""
        ...

    def list_partitions(self) -> tuple[Partition, ...]:
        """See ``ListPartitions``."""
        ...

    def read_label(self, device: Path) -> str:
        """See ``ReadLabel``."""
        ...

    def read_small_disk(
        self, device: Path, folder: Path, names: tuple[str, ...], *, limit: int
    ) -> tuple[str | None, ...]:
        """See ``ReadSmallDisk``. Raises: ToolError, DocumentError (a file is too large)."""
        ...

    def read_file(self, path: Path, *, limit: int) -> bytes:
        """See ``ReadFile``. Raises: MissingError, DocumentError."""
        ...

    def read_key(self, name: str) -> Secret:
        """See ``ReadKey``. Raises: MissingError."""
        ...

    def revoke_key(self, name: str) -> None:
        """See ``RevokeKey``. Raises: MissingError."""
        ...

    def resolve(self, place: Place) -> None:
        """See ``Resolve``. Raises: TransferError, MissingError."""
        ...

    def make_staging(self, folder: Path) -> Memory:
        """See ``MakeStaging``. Raises: ToolError."""
        ...

    def fetch_manifest(
        self, place: Place, *, ca_pem: bytes, at: datetime, product: UUID
    ) -> Fetched:
        """See ``FetchManifest``. Raises: SignatureError, PolicyError, MissingError,
        DocumentError, TransferError."""
        ...

    def inspect_image(self, place: Place, target: Target, publisher: Publisher) -> Inspected:
        """See ``InspectImage``. Raises: MissingError, TransferError, VerificationError."""
        ...

    def fetch_image(self, place: Place, target: Target, signatures: Signatures, into: Path) -> None:
        """See ``FetchImage``. Raises: DigestError, MissingError, TransferError, SpaceError."""
        ...

    def write_table(self, device: Path, partitions: tuple[PartitionSpec, ...]) -> None:
        """See ``WriteTable``. Raises: ToolError."""
        ...

    def make_group(self, name: str, device: Path, *, key: Secret) -> None:
        """See ``MakeGroup``. Raises: ToolError."""
        ...

    def trust_publisher(self, certificate: bytes) -> None:
        """See ``TrustPublisher``. Raises: SignatureError, MissingError."""
        ...


_OWN: Mapping[type[Step[Any]], Callable[[Host, Any], object]] = {
    Say: lambda host, step: host.say(step.text),
    Now: lambda host, _: host.now(),
    Ticks: lambda host, _: host.ticks(),
    Sleep: lambda host, step: host.sleep(step.seconds),
    ListDisks: lambda host, _: host.list_disks(),
    LookAtUse: lambda host, step: host.look_at_use(step.nodes),
    ListPartitions: lambda host, _: host.list_partitions(),
    ReadLabel: lambda host, step: host.read_label(step.device),
    ReadSmallDisk: lambda host, step: host.read_small_disk(
        step.device, step.folder, step.names, limit=step.limit
    ),
    ReadFile: lambda host, step: host.read_file(step.path, limit=step.limit),
    ReadKey: lambda host, step: host.read_key(step.name),
    RevokeKey: lambda host, step: host.revoke_key(step.name),
    Resolve: lambda host, step: host.resolve(step.place),
    MakeStaging: lambda host, step: host.make_staging(step.folder),
    FetchManifest: lambda host, step: host.fetch_manifest(
        step.place, ca_pem=step.ca_pem, at=step.at, product=step.product
    ),
    InspectImage: lambda host, step: host.inspect_image(step.place, step.target, step.publisher),
    FetchImage: lambda host, step: host.fetch_image(
        step.place, step.target, step.signatures, step.into
    ),
    WriteTable: lambda host, step: host.write_table(step.device, step.partitions),
    MakeGroup: lambda host, step: host.make_group(step.name, step.device, key=step.key),
    TrustPublisher: lambda host, step: host.trust_publisher(step.certificate),
}
CALLS: Mapping[type[Step[Any]], Callable[[Any, Any], object]] = {
    **_OWN, **slots.CALLS, **config.CALLS, **images.CALLS, **store.CALLS, **volumes.CALLS,
}  # fmt: skip


def perform(host: Host, step: Step[object]) -> object:
    """Take one step on ``host`` and return the answer; the runner's only way to it."""
    return CALLS[type(step)](host, step)
