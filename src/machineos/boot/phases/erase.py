"""Take the device's private key off the disk that brought it: the TPM has it now.

The machine is provisioned whether that works or not, so a disk that cannot be written to is told
and not refused. Overwriting is as good as the disk is: flash memory may keep the old block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.boot.facts import (
    CARRIER,
    DISK_FLAGS,
    PROVISIONED,
    PROVISIONS,
    Facts,
    Phase,
)
from machineos.boot.phases.carrier import FOLDER, PRIVATE_KEY
from machineos.boot.steps import EraseFile, MountToErase, Say, Unmount
from machineos.core.steps import Talk, ask
from machineos.errors import MachineOSError
from machineos.host.kernel.flags import Flag

if TYPE_CHECKING:
    from pathlib import Path


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        device = facts[CARRIER]
        try:
            yield from _erase(device)
        except (OSError, MachineOSError) as error:
            yield from ask(Say(f"THE PRIVATE KEY IS STILL ON {device}: {error}; destroy that disk"))
            return Facts()
        yield from ask(Say(f"the private key on {device} was overwritten (flash may keep a copy)"))
        return Facts()


def _erase(device: Path) -> Talk[None]:
    yield from ask(MountToErase(device, FOLDER, "vfat", DISK_FLAGS & ~Flag.RDONLY))
    try:
        yield from ask(EraseFile(FOLDER / PRIVATE_KEY))
    except (OSError, MachineOSError):
        yield from ask(Unmount(FOLDER))
        raise
    yield from ask(Unmount(FOLDER))


PHASE = _Phase(
    "erase",
    modes=PROVISIONS,
    needs=frozenset({CARRIER, PROVISIONED}),
    gives=frozenset(),
)
