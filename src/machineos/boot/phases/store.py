"""Mount the image store of the disk that the configuration is on, and of no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.boot.facts import (
    DISK,
    DISK_FLAGS,
    FIRST_DOOR,
    GENERATION,
    RUNS,
    STORE,
    STORE_FOLDER,
    UNSEALED,
    Facts,
    Phase,
)
from machineos.boot.steps import ListPartitions, MakeFolder, MountDisk
from machineos.core.steps import Talk, ask
from machineos.document.verify.images import REPOSITORY
from machineos.errors import BootError

if TYPE_CHECKING:
    from pathlib import Path

PARTITION = "machine-store"


def partition_of(disk: str, label: str) -> Talk[Path]:
    """Return the device of the partition ``label`` of that very disk. Raises: BootError."""
    for partition in (yield from ask(ListPartitions())):
        if partition.disk == disk and partition.label == label:
            return partition.device
    raise BootError(f"disk {disk} has no partition {label}")


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        device = yield from partition_of(facts[DISK], PARTITION)
        yield from ask(MakeFolder(STORE_FOLDER))
        yield from ask(MountDisk(device, STORE_FOLDER, "ext4", DISK_FLAGS))
        return Facts().plus(STORE, STORE_FOLDER / REPOSITORY)


PHASE = _Phase(
    "store",
    modes=RUNS,
    needs=frozenset({DISK, GENERATION, UNSEALED, FIRST_DOOR}),
    gives=frozenset({STORE}),
)
