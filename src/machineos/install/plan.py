"""Which disk, and how it is divided. Pure: facts in, decision out (docs/design, "Disk")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.core.size import show_size
from machineos.errors import MissingError, SpaceError, UsageError
from machineos.host.disk.sfdisk import ESP, PartitionSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from machineos.host.disk.device import Disk

MINIMUM_DISK = 8 * 10**9
_MIB = 1 << 20
_GIB = 1 << 30
# The predecessor's partition types for config and store; data is LVM's own.
CONFIG_TYPE = "F79962B9-24E6-9948-9F94-E6BFDAD2771A"
STORE_TYPE = "F79962B9-24E6-9948-9F94-E6BFDAD2771B"
LVM_TYPE = "E6D6D379-F507-44C2-A23C-238F2A3DF928"
ESP_LABEL, CONFIG_LABEL, STORE_LABEL, DATA_LABEL = (
    "esp", "machine-config", "machine-store", "machine-data",
)  # fmt: skip
GROUP = DATA_LABEL  # the volume group on that partition has its name


def choose_disk(disks: Sequence[Disk], wanted: str = "") -> Disk:
    """Return the disk to install on: the one that is named, or the only one that is suitable.

    With several suitable ones a person has to say which: a wrong guess would destroy data.
    Raises: MissingError, SpaceError, UsageError.
    """
    if wanted:
        return _named(disks, wanted)
    fit = [d for d in disks if not d.read_only and not d.removable and d.size >= MINIMUM_DISK]
    if len(fit) == 1:
        return fit[0]
    shown = ", ".join(f"{disk.name} ({show_size(disk.size)})" for disk in disks) or "none"
    if not fit:
        raise MissingError(
            f"no disk to install on: {show_size(MINIMUM_DISK)} are needed; there are: {shown}"
        )
    raise UsageError(f"several disks could be installed on: {shown}", hint="name one with --disk")


def _named(disks: Sequence[Disk], wanted: str) -> Disk:
    name = wanted.removeprefix("/dev/")
    named = [disk for disk in disks if disk.name == name]
    if not named:
        raise MissingError(f"this machine has no disk {wanted!r}")
    if named[0].read_only:
        raise UsageError(f"disk {name} is read-only")
    if named[0].size < MINIMUM_DISK:
        raise SpaceError(
            f"disk {name} has {show_size(named[0].size)}, {show_size(MINIMUM_DISK)} are needed"
        )
    return named[0]


def partition_plan(disk_size: int, content: int) -> tuple[PartitionSpec, ...]:
    """Return the partitions for a disk of that size; ``content`` is what the store must hold.

    Two generations fit into the store besides the one that is staged. Raises: SpaceError.
    """
    usable = disk_size - 4 * _MIB
    esp = 512 * _MIB
    config = _clamp(disk_size // 128, 64 * _MIB, _GIB)
    store = _clamp(disk_size * 2 // 5, 3 * _GIB, 60 * _GIB)
    store = max(store, _round_up(content * 3))
    data = usable - esp - config - store
    if data < _GIB // 2:
        raise SpaceError(
            f"the disk has {show_size(disk_size)}: after {show_size(store)} for images "
            f"nothing useful is left for data",
            hint="use a larger disk",
        )
    return (
        PartitionSpec(ESP_LABEL, ESP, esp),
        PartitionSpec(CONFIG_LABEL, CONFIG_TYPE, config),
        PartitionSpec(STORE_LABEL, STORE_TYPE, store),
        PartitionSpec(DATA_LABEL, LVM_TYPE, 0),
    )


def _clamp(value: int, low: int, high: int) -> int:
    return _round_up(max(low, min(value, high)))


def _round_up(value: int) -> int:
    return -(-value // _MIB) * _MIB
