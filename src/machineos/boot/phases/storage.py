"""Begin to make the volumes of services available, and make the keys that open them.

They are made of the storage volume key here, so that it can be overwritten at once. What lies below
the volumes takes two seconds to open, in which documents and images are verified.
"""

from __future__ import annotations

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
from machineos.boot.volumesteps import BeginVolumes
from machineos.core.steps import Talk, ask
from machineos.state.volumes.sealed import GROUP, integrity_key, machine_key


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        device = partition_of(facts[PARTITIONS], GROUP)
        yield from ask(BeginVolumes(GROUP, device, integrity_key(facts[STORAGE_KEY])))
        return Facts().plus(MACHINE_KEY, machine_key(facts[STORAGE_KEY]))


PHASE = _Phase(
    "storage",
    modes=RUNS,
    needs=frozenset({PARTITIONS, DRIVERS, OPENED, STORAGE_KEY, UNSEALED, FIRST_DOOR}),
    gives=frozenset({VOLUMES_BEGUN, MACHINE_KEY, VOLUME_KEYS}),
)
