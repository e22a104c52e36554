"""Open what all volumes of services lie on, and begin to make them available.

The keys are made of the storage volume key here, so that it can be overwritten at once. LVM takes a
second, in which documents and images are verified.
"""

from __future__ import annotations

from machineos.boot.facts import (
    DISK,
    DRIVERS,
    FIRST_DOOR,
    MACHINE_KEY,
    OPENED,
    RUNS,
    STORAGE_KEY,
    UNSEALED,
    VOLUME_KEYS,
    VOLUMES_BEGUN,
    Facts,
    Phase,
)
from machineos.boot.phases.store import partition_of
from machineos.boot.steps import ForgetSecret
from machineos.boot.volumesteps import BeginVolumes, OpenIntegrity
from machineos.core.steps import Talk, ask
from machineos.host.disk import integrity
from machineos.state.volumes.sealed import GROUP, INTEGRITY, integrity_key, machine_key


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        device = yield from partition_of(facts[DISK], GROUP)
        key = integrity_key(facts[STORAGE_KEY])
        yield from ask(OpenIntegrity(device, INTEGRITY, key))
        yield from ask(ForgetSecret(key))
        yield from ask(BeginVolumes(GROUP, integrity.mapped(INTEGRITY)))
        return Facts().plus(MACHINE_KEY, machine_key(facts[STORAGE_KEY]))


PHASE = _Phase(
    "storage",
    modes=RUNS,
    needs=frozenset({DISK, DRIVERS, OPENED, STORAGE_KEY, UNSEALED, FIRST_DOOR}),
    gives=frozenset({VOLUMES_BEGUN, MACHINE_KEY, VOLUME_KEYS}),
)
