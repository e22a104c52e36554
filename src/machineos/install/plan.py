"""Which disk, and how it is divided. Pure: facts in, decision out (docs/design, "Disk")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.core.size import show_size
from machineos.errors import ConflictError, MissingError, SpaceError, UsageError
from machineos.host.disk.sfdisk import ESP, PartitionSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from machineos.host.disk.device import Disk
    from machineos.host.disk.usage import Usage

MINIMUM_DISK = 8 * 10**9
_MIB = 1 << 20
_GIB = 1 << 30
# Four slots of a UKI with the generic kernel and Intel's microcode (4 x 49 MB) and 64 MiB, twice;
# a large disk can afford what nobody thought of.
_ESP, _LARGE_ESP, _LARGE_DISK = 512 * _MIB, _GIB, 32 * _GIB
# For what dm-raid keeps of each mirrored partition (superblock and bitmap): a second disk can join
# without a partition being moved. And two disks of the same name are never quite of one size.
_MIRROR, _SPARE = 16 * _MIB, 64 * _MIB
_LEAST_DATA = _GIB // 2
# The predecessor's partition types for config and store; data is LVM's own; Linux reserved.
CONFIG_TYPE = "F79962B9-24E6-9948-9F94-E6BFDAD2771A"
STORE_TYPE = "F79962B9-24E6-9948-9F94-E6BFDAD2771B"
LVM_TYPE = "E6D6D379-F507-44C2-A23C-238F2A3DF928"
MIRROR_TYPE = "8DA63339-0007-60C0-C436-083AC8230908"
ESP_LABEL, CONFIG_LABEL, STORE_LABEL, MIRROR_LABEL, DATA_LABEL = (
    "esp", "machine-config", "machine-store", "machine-mirror", "machine-data",
)  # fmt: skip
GROUP = DATA_LABEL  # the volume group on that partition has its name


def choose_disk(disks: Sequence[Disk], usage: Usage, wanted: str = "") -> Disk:
    """Return the disk to install on: the one that is named, or the only one that is suitable.

    One that is in use never is. With several suitable ones a person has to say which: a wrong guess
    would destroy data. Raises: ConflictError, MissingError, SpaceError, UsageError.
    """
    if wanted:
        return _named(disks, usage, wanted)
    fit = [
        disk
        for disk in disks
        if not disk.read_only
        and not disk.removable
        and disk.size >= MINIMUM_DISK
        and not usage.of(disk.name)
    ]
    if len(fit) == 1:
        return fit[0]
    shown = "; ".join(_shown(disk, usage) for disk in disks) or "none"
    if not fit:
        raise MissingError(
            f"no disk to install on: {show_size(MINIMUM_DISK)} are needed; there are: {shown}"
        )
    raise UsageError(f"several disks could be installed on: {shown}", hint="name one with --disk")


def _shown(disk: Disk, usage: Usage) -> str:
    uses = usage.of(disk.name)
    words = [show_size(disk.size), *(["in use: " + ", ".join(uses)] if uses else [])]
    return f"{disk.name} ({', '.join(words)})"


def _named(disks: Sequence[Disk], usage: Usage, wanted: str) -> Disk:
    name = wanted.removeprefix("/dev/")
    disk = next((disk for disk in disks if disk.name == name), None)
    if disk is None:
        raise MissingError(f"this machine has no disk {wanted!r}")
    if disk.read_only:
        raise UsageError(f"disk {name} is read-only")
    if disk.size < MINIMUM_DISK:
        raise SpaceError(
            f"disk {name} has {show_size(disk.size)}, {show_size(MINIMUM_DISK)} are needed"
        )
    uses = usage.of(name)
    if uses:
        raise ConflictError(
            f"disk {name} is in use: {', '.join(uses)}",
            hint="name another disk, or free this one: everything on it will be lost",
        )
    return disk


def partition_plan(disk_size: int, content: int) -> tuple[PartitionSpec, ...]:
    """Return the partitions for a disk of that size; ``content`` is what the store must hold.

    No update can change them, so they are for a life: two generations fit into the store besides
    the one that is staged, and a second disk can become the mirror of this one. Bytes.
    Raises: SpaceError.
    """
    esp = _LARGE_ESP if disk_size > _LARGE_DISK else _ESP
    config = _clamp(disk_size // 128, 256 * _MIB, _GIB)
    store = _clamp(disk_size * 2 // 5, 3 * _GIB, 60 * _GIB)
    store = max(store, _round_up(content * 3))
    usable = (disk_size - _SPARE) // _MIB * _MIB - 2 * _MIB
    data = usable - esp - config - store - _MIRROR
    if data < _LEAST_DATA:
        raise SpaceError(
            f"the disk has {show_size(disk_size)}: after {show_size(store)} for images "
            f"nothing useful is left for data",
            hint="use a larger disk",
        )
    return (
        PartitionSpec(ESP_LABEL, ESP, esp),
        PartitionSpec(CONFIG_LABEL, CONFIG_TYPE, config),
        PartitionSpec(STORE_LABEL, STORE_TYPE, store),
        PartitionSpec(MIRROR_LABEL, MIRROR_TYPE, _MIRROR),
        PartitionSpec(DATA_LABEL, LVM_TYPE, data),
    )


def _clamp(value: int, low: int, high: int) -> int:
    return _round_up(max(low, min(value, high)))


def _round_up(value: int) -> int:
    return -(-value // _MIB) * _MIB
