"""Begin to make the volumes of services available, and make the keys that open them.

They are made of the storage volume key here, so that it can be overwritten at once. What lies below
the volumes takes two seconds to open, in which documents and images are verified. A machine whose
volumes are lost boots, and says so: whoever uses them is refused by mosd.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.boot.facts import (
    DRIVERS,
    FIRST_DOOR,
    MACHINE_KEY,
    OPENED,
    PARTITIONS,
    RUNS,
    STORAGE_KEY,
    UNSEALED,
    VOLUME_KEYS,
    VOLUMES_BEGUN,
    Facts,
    Phase,
)
from machineos.boot.phases.store import partition_of
from machineos.boot.steps import ReadHeader, Say
from machineos.boot.volumesteps import BeginVolumes
from machineos.core.steps import Talk, ask
from machineos.errors import MachineOSError, VerificationError
from machineos.host.disk.integrity import SUPERBLOCK_SIZE, check_superblock
from machineos.state.volumes.sealed import GROUP, integrity_key, machine_key

if TYPE_CHECKING:
    from pathlib import Path

ADVICE = (
    "what to do: start again, with the disk that was installed here; until then the services of "
    "these volumes stay stopped, and nothing of the volumes is changed"
)


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        try:
            device = partition_of(facts[PARTITIONS], GROUP)
            yield from _check(device)
        except MachineOSError as error:
            yield from ask(Say(f"storage: no volume can be opened: {error.told}"))
            yield from ask(Say(ADVICE))
        else:
            yield from ask(BeginVolumes(GROUP, device, integrity_key(facts[STORAGE_KEY])))
        return Facts().plus(MACHINE_KEY, machine_key(facts[STORAGE_KEY]))


def _check(device: Path) -> Talk[None]:
    try:
        block = yield from ask(ReadHeader(device, SUPERBLOCK_SIZE))
    except OSError as error:
        raise VerificationError(f"{device}: {error.strerror}") from error
    check_superblock(block, what=str(device))


PHASE = _Phase(
    "storage",
    modes=RUNS,
    needs=frozenset({PARTITIONS, DRIVERS, OPENED, STORAGE_KEY, UNSEALED, FIRST_DOOR}),
    gives=frozenset({VOLUMES_BEGUN, MACHINE_KEY, VOLUME_KEYS}),
)
