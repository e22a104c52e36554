"""Mount the image store of the disk that the configuration is on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.boot.facts import (
    DISK_FLAGS,
    FIRST_DOOR,
    GENERATION,
    PARTITIONS,
    RUNS,
    STORE,
    STORE_FOLDER,
    UNSEALED,
    Facts,
    Phase,
)
from machineos.boot.steps import MakeFolder, MountDisk
from machineos.core.steps import Talk, ask
from machineos.document.verify.images import REPOSITORY
from machineos.errors import BootError
from machineos.state.volumes.header import LABEL as CONFIG

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PARTITION = "machine-store"


def partition_of(partitions: Mapping[str, Path], label: str) -> Path:
    """Return the device of a partition. Raises: BootError."""
    if label not in partitions:
        raise BootError(f"the disk that {partitions[CONFIG]} is on has no partition {label}")
    return partitions[label]


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        device = partition_of(facts[PARTITIONS], PARTITION)
        yield from ask(MakeFolder(STORE_FOLDER))
        yield from ask(MountDisk(device, STORE_FOLDER, "ext4", DISK_FLAGS))
        return Facts().plus(STORE, STORE_FOLDER / REPOSITORY)


PHASE = _Phase(
    "store",
    modes=RUNS,
    needs=frozenset({PARTITIONS, GENERATION, UNSEALED, FIRST_DOOR}),
    gives=frozenset({STORE}),
)
