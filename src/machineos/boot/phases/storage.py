"""Begin to open what the volumes are on, in the background, and derive the key that they are sealed
to. What is derived lives on; the key that it came from is overwritten next.

Nothing waits here: LVM looks at the disk while documents and images are verified.
"""

from __future__ import annotations

from machineos.boot.facts import (
    DISK,
    DRIVERS,
    FIRST_DOOR,
    PUBLIC_KEY,
    RUNS,
    SEALING_KEY,
    STORAGE_KEY,
    STORAGE_USED,
    UNSEALED,
    Facts,
    Phase,
)
from machineos.boot.phases.store import partition_of
from machineos.boot.steps import BeginStorage
from machineos.core.steps import Talk, ask
from machineos.trust.wrap.hpke import public_key
from machineos.trust.wrap.storage import integrity_key, sealing_key

PARTITION = "machine-data"


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        device = yield from partition_of(facts[DISK], PARTITION)
        yield from ask(BeginStorage(device, integrity_key(facts[STORAGE_KEY])))
        sealing = sealing_key(facts[STORAGE_KEY])
        return Facts().plus(SEALING_KEY, sealing).plus(PUBLIC_KEY, public_key(sealing))


PHASE = _Phase(
    "storage",
    modes=RUNS,
    needs=frozenset({DRIVERS, DISK, STORAGE_KEY, UNSEALED, FIRST_DOOR}),
    gives=frozenset({SEALING_KEY, PUBLIC_KEY, STORAGE_USED}),
)
