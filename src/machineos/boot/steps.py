"""The vocabulary of the boot: every effect that it can have, as a frozen value. Pure.

A step holds all that it takes; whoever performs it looks nothing up and decides nothing. ``after``
says what has to hold before a step may be taken at all, whichever phase it stands in: it is the
security order once more, on the side of the effect (docs/adr/0018).

Structs and not dataclasses: they cost a twentieth at import, and the initrd imports them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import msgspec

from machineos.boot.driversteps import BeginModules as BeginModules
from machineos.boot.driversteps import LoadDriver as LoadDriver
from machineos.boot.driversteps import LoadModules as LoadModules
from machineos.boot.driversteps import WaitForDrivers as WaitForDrivers
from machineos.boot.facts import (
    DOOR_CLOSED,
    DRIVERS,
    ENFORCING,
    FIRMWARE_KEYS,
    FIRST_DOOR,
    GENERATION,
    IDENTITY,
    LOCKED,
    PROVISIONED,
    PUBLISHERS,
    ROOT,
    TPM_KIND,
    TRUSTED,
    UNPRIVILEGED,
    UNSEALED,
)
from machineos.boot.volumesteps import BeginVolumes as BeginVolumes
from machineos.boot.volumesteps import ListVolumes as ListVolumes
from machineos.boot.volumesteps import OpenVolume as OpenVolume
from machineos.core.steps import Step

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path
    from uuid import UUID

    from machineos.boot.facts import HostCa
    from machineos.core.digest import Digest
    from machineos.core.secret import Secret
    from machineos.document.product.install import Target
    from machineos.document.verify.published import VerifiedInstall
    from machineos.host.disk.device import Partition
    from machineos.host.kernel.flags import Flag
    from machineos.oci.model.atomfs import Layer
    from machineos.oci.model.documents import Manifest
    from machineos.trust.measure.tpm_policy import Phase, SignedPolicy
    from machineos.trust.seal.layout import Index
    from machineos.trust.seal.tpmkind import Maker
    from machineos.trust.verify.chain import DeviceIdentity, Publisher

# -- console and clock


class Say(msgspec.Struct, Step[None], frozen=True):
    """Write one line of progress."""

    text: str


class ReadClock(msgspec.Struct, Step["datetime"], frozen=True):
    """Answer the wall time."""


class SetClock(msgspec.Struct, Step[None], frozen=True):
    """Set the wall time, in seconds since 1970."""

    seconds: int


class ReadTimer(msgspec.Struct, Step[float], frozen=True):
    """Answer seconds that never go back, for deadlines."""


class Sleep(msgspec.Struct, Step[None], frozen=True):
    """Wait."""

    seconds: float


# -- files


class ReadFile(msgspec.Struct, Step[bytes], frozen=True):
    """Answer the content of a regular file, at most ``limit`` bytes."""

    path: Path
    limit: int


class ReadPart(msgspec.Struct, Step[bytes], frozen=True):
    """Answer ``size`` bytes of a regular file from ``offset`` on, fewer at its end."""

    path: Path
    offset: int
    size: int


class ReadText(msgspec.Struct, Step[str], frozen=True):
    """Answer a small pseudo file without the final newline, empty when it is not there."""

    path: Path


class ReadSecret(msgspec.Struct, Step["Secret"], frozen=True):
    """Answer the content of a small regular file that nothing may show."""

    path: Path
    limit: int


class WriteFile(msgspec.Struct, Step[None], frozen=True):
    """Write a file in memory, whole."""

    path: Path
    data: bytes
    mode: int = 0o644


class EraseFile(msgspec.Struct, Step[None], frozen=True):
    """Overwrite a file of a disk where it lies, see that the disk has that, and remove it."""

    point: ClassVar[str] = "identity-erased"
    after: ClassVar[frozenset[str]] = frozenset({PROVISIONED})
    path: Path


class MakeFolder(msgspec.Struct, Step[None], frozen=True):
    """Make a folder that must not be there yet, in one that is."""

    path: Path
    mode: int = 0o755


class ListFolder(msgspec.Struct, Step["tuple[str, ...]"], frozen=True):
    """Answer the first ``limit`` names in a folder as it lists them, none when it is not there."""

    path: Path
    limit: int


class IsFolder(msgspec.Struct, Step[bool], frozen=True):
    """Answer whether there is such a folder."""

    path: Path


class IsProgram(msgspec.Struct, Step[bool], frozen=True):
    """Answer whether there is such a file and it may be executed."""

    path: Path


# -- disks


class ListPartitions(msgspec.Struct, Step["tuple[Partition, ...]"], frozen=True):
    """Answer every partition that has a name, each with its disk."""


class ListDisks(msgspec.Struct, Step["tuple[Path, ...]"], frozen=True):
    """Answer the device nodes of whole disks."""


class ListOptical(msgspec.Struct, Step["tuple[Path, ...]"], frozen=True):
    """Answer the device nodes of optical drives."""


class ReadLabel(msgspec.Struct, Step[str], frozen=True):
    """Answer the label of the FAT or ISO 9660 file system on a device, empty for anything else."""

    after: ClassVar[frozenset[str]] = frozenset({FIRST_DOOR})
    device: Path


class ReadCarrierLabel(msgspec.Struct, Step[str], frozen=True):
    """The same in a machine that has no secret yet."""

    after: ClassVar[frozenset[str]] = frozenset({DRIVERS})
    device: Path


class ReadHeader(msgspec.Struct, Step[bytes], frozen=True):
    """Answer the first ``size`` bytes of what may be a LUKS device."""

    after: ClassVar[frozenset[str]] = frozenset({FIRST_DOOR})
    device: Path
    size: int


class OpenLuks(msgspec.Struct, Step[None], frozen=True):
    """Open a LUKS device under ``name``, by the header in the file ``header``."""

    after: ClassVar[frozenset[str]] = frozenset({UNSEALED, FIRST_DOOR})
    device: Path
    name: str
    header: Path
    key: Secret


# -- mounts


class MountDisk(msgspec.Struct, Step[None], frozen=True):
    """Mount a file system of a disk that anybody may have written to."""

    after: ClassVar[frozenset[str]] = frozenset({UNSEALED, FIRST_DOOR})
    device: Path
    target: Path
    filesystem: str
    flags: Flag


class MountCarrier(msgspec.Struct, Step[None], frozen=True):
    """Mount the disk with a new identity, in a machine that has no secret yet."""

    after: ClassVar[frozenset[str]] = frozenset({DRIVERS})
    device: Path
    target: Path
    filesystem: str
    flags: Flag


class MountToErase(msgspec.Struct, Step[None], frozen=True):
    """Mount that disk once more, so that it can be written to: the machine has what was on it."""

    point: ClassVar[str] = "carrier-writable"
    after: ClassVar[frozenset[str]] = frozenset({PROVISIONED})
    device: Path
    target: Path
    filesystem: str
    flags: Flag


class MountOverlay(msgspec.Struct, Step[None], frozen=True):
    """Put a writable layer over ``target``."""

    after: ClassVar[frozenset[str]] = frozenset({ROOT})
    target: Path
    upper: Path
    work: Path
    flags: Flag


class MountImage(msgspec.Struct, Step[None], frozen=True):
    """Mount the layer in the file ``blob``, under dm-verity, by its signed root hash."""

    after: ClassVar[frozenset[str]] = frozenset({ENFORCING, TRUSTED})
    blob: Path
    layer: Layer
    signature: bytes
    target: Path


class Bind(msgspec.Struct, Step[None], frozen=True):
    """Show a folder in a second place, read-only."""

    after: ClassVar[frozenset[str]] = frozenset({ENFORCING})
    source: Path
    target: Path


class Move(msgspec.Struct, Step[None], frozen=True):
    """Move a mount."""

    after: ClassVar[frozenset[str]] = frozenset({DOOR_CLOSED})
    source: Path
    target: Path


class Unmount(msgspec.Struct, Step[None], frozen=True):
    """Undo a mount."""

    target: Path


# -- the store and the medium


class ReadImage(msgspec.Struct, Step["tuple[Manifest, Mapping[Digest, bytes]]"], frozen=True):
    """Answer the verified image manifest of a target, and the publisher's signatures of root hashes
    by layer."""

    store: Path
    target: Target
    publisher: Publisher


class FetchManifest(msgspec.Struct, Step["VerifiedInstall"], frozen=True):
    """Answer the manifest ``reference`` of a folder of layouts, verified for ``product``."""

    after: ClassVar[frozenset[str]] = frozenset({IDENTITY})
    layouts: Path
    name: str
    reference: str
    ca_pem: bytes
    product: UUID


# -- the TPM


class OpenSealed(msgspec.Struct, Step[None], frozen=True):
    """Open what the TPM seals, by those of the policies that fit this boot, phase by phase."""

    after: ClassVar[frozenset[str]] = frozenset({DRIVERS})
    policies: tuple[SignedPolicy, ...]
    policy_key: bytes


class ReadSealed(msgspec.Struct, Step["Secret"], frozen=True):
    """Answer one sealed secret."""

    after: ClassVar[frozenset[str]] = frozenset({DRIVERS})
    index: Index


class CloseSealed(msgspec.Struct, Step[None], frozen=True):
    """End the session that ``OpenSealed`` began."""


class ReadFloor(msgspec.Struct, Step[str], frozen=True):
    """Answer the oldest policy version that may boot, on the TPM's own word."""

    after: ClassVar[frozenset[str]] = frozenset({DRIVERS})


class RaiseFloor(msgspec.Struct, Step[None], frozen=True):
    """Let the TPM refuse every image older than ``version`` from the next boot on."""

    point: ClassVar[str] = "floor-raised"
    after: ClassVar[frozenset[str]] = frozenset({FIRST_DOOR, GENERATION, ROOT})
    version: str


class MakeHostCa(msgspec.Struct, Step["HostCa"], frozen=True):
    """Answer a new CA for the machine of this device identity, signed by its key."""

    after: ClassVar[frozenset[str]] = frozenset({FIRST_DOOR, IDENTITY})
    identity: DeviceIdentity
    private_key: Secret


class ForgetSecret(msgspec.Struct, Step[None], frozen=True):
    """Overwrite a secret in memory, in its place."""

    secret: Secret


class CloseDoor(msgspec.Struct, Step[None], frozen=True):
    """End a phase of the boot: make what is sealed for it unreadable until the next reset (behind
    the second door all that is sealed), and make sure of it."""

    phase: Phase


class ProvisionTpm(msgspec.Struct, Step[None], frozen=True):
    """Give the TPM its identity, its keys and its policies."""

    point: ClassVar[str] = "tpm-provisioned"
    after: ClassVar[frozenset[str]] = frozenset({IDENTITY, TPM_KIND})
    policy_key: bytes
    admin_policy_key: bytes
    certificate: bytes
    private_key: Secret
    policy_version: str


# -- what the kernel trusts and allows


class ReadTpmMaker(msgspec.Struct, Step["Maker"], frozen=True):
    """Answer who made the TPM, by its own word."""

    after: ClassVar[frozenset[str]] = frozenset({DRIVERS})


class ListKeys(msgspec.Struct, Step[tuple[str, ...]], frozen=True):
    """Answer what a keyring of the kernel holds, by the keys' own descriptions."""

    name: str


class TrustCertificate(msgspec.Struct, Step[None], frozen=True):
    """Put a certificate (DER) into the kernel's secondary keyring, if what is there vouches."""

    after: ClassVar[frozenset[str]] = frozenset({PUBLISHERS, ENFORCING, FIRMWARE_KEYS})
    certificate: bytes
    what: str


class LoadProfiles(msgspec.Struct, Step[None], frozen=True):
    """Give AppArmor compiled profiles."""

    compiled: bytes


class EnforcePolicy(msgspec.Struct, Step[None], frozen=True):
    """Let the kernel enforce a signed policy on what may be executed."""

    signed: bytes


class SetSysctl(msgspec.Struct, Step[None], frozen=True):
    """Set a parameter of the kernel (``host.kernel.sysctl``), which must be there."""

    name: str
    value: str


class ReplacePolicy(msgspec.Struct, Step[None], frozen=True):
    """Put a newer policy of the same name in the place of the one that is enforced."""

    after: ClassVar[frozenset[str]] = frozenset({ENFORCING, ROOT, DOOR_CLOSED})
    signed: bytes


class DropMacAdmin(msgspec.Struct, Step[None], frozen=True):
    """Give up, for all that is started from now on, what could switch the policy off."""

    after: ClassVar[frozenset[str]] = frozenset({LOCKED})


class KeepSecret(msgspec.Struct, Step[None], frozen=True):
    """Put a secret into root's keyring."""

    after: ClassVar[frozenset[str]] = frozenset({ENFORCING, UNSEALED})
    description: str
    secret: Secret


class SwitchRoot(msgspec.Struct, Step[None], frozen=True):
    """Make ``root`` the root, free the memory of the initrd, and become ``init``."""

    after: ClassVar[frozenset[str]] = frozenset({DOOR_CLOSED, LOCKED, UNPRIVILEGED, ENFORCING})
    root: Path
    init: str
    arguments: tuple[str, ...] = ()


if TYPE_CHECKING:
    TimeStep = Say | ReadClock | SetClock | ReadTimer | Sleep
    DriverStep = WaitForDrivers | LoadDriver | BeginModules | LoadModules
    FileStep = (
        ReadFile | ReadPart | ReadText | ReadSecret | WriteFile | EraseFile | MakeFolder
        | ListFolder | IsFolder | IsProgram
    )  # fmt: skip
    ContentStep = ReadImage | FetchManifest
    DiskStep = (
        ListPartitions | ListDisks | ListOptical | ReadLabel | ReadCarrierLabel | ReadHeader
        | OpenLuks
    )  # fmt: skip
    VolumeStep = BeginVolumes | ListVolumes | OpenVolume
    MountStep = (
        MountDisk | MountCarrier | MountToErase | MountOverlay | MountImage | Bind | Move | Unmount
    )  # fmt: skip
    LookStep = ListKeys | ReadTpmMaker
    DeviceStep = DiskStep | VolumeStep | MountStep | LookStep
    EnforcementStep = (
        TrustCertificate | LoadProfiles | EnforcePolicy | SetSysctl | ReplacePolicy | DropMacAdmin
    )  # fmt: skip
    SealStep = (
        OpenSealed | ReadSealed | CloseSealed | ReadFloor | RaiseFloor | MakeHostCa | ForgetSecret
        | CloseDoor | ProvisionTpm
    )  # fmt: skip
    TrustStep = (
        SealStep | EnforcementStep | KeepSecret | SwitchRoot
    )  # fmt: skip
    BootStep = TimeStep | DriverStep | FileStep | ContentStep | DeviceStep | TrustStep
