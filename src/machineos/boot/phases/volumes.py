"""Open every volume that the generation names, and that of the machine's own log; the kernel keeps
their keys, and nobody else.

A header may have been written by root of the last boot: ``state.volumes.sealed`` reads the token in
it, and nobody reads more. What does not open ends no boot: its service is refused alone, by mosd,
which finds no device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.boot.facts import (
    FIRST_DOOR,
    GENERATION,
    MACHINE_KEY,
    RUNS,
    UNSEALED,
    VOLUMES,
    VOLUMES_BEGUN,
    Facts,
    Phase,
)
from machineos.boot.phases.storage import ADVICE
from machineos.boot.steps import ForgetSecret, ReadHeader, Say
from machineos.boot.volumesteps import ListVolumes, OpenVolume
from machineos.core.steps import Talk, ask
from machineos.document.model.names import Label, Unfinished
from machineos.errors import MachineOSError, VerificationError
from machineos.host.disk.lvm import LOG
from machineos.state.volumes.sealed import (
    GROUP,
    HEADERS_SIZE,
    device_of,
    open_token,
    read_token,
)
from machineos.trust.wrap.hpke import public_key

if TYPE_CHECKING:
    from machineos.core.secret import Secret
    from machineos.document.model.names import VolumeName
    from machineos.document.state.system import System


def persistent(system: System) -> tuple[Label, ...]:
    """Return the labels of the volumes that outlive a boot, sorted."""
    found = (each.storage for each in system.storage)
    return tuple(sorted(item.name for item in found if item.persistent))


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        key = facts[MACHINE_KEY]
        shown = yield from ask(ListVolumes(GROUP))
        whole = not shown.complaint
        if not whole:
            yield from ask(Say(f"storage: not every volume is there: {shown.complaint}"))
        for label in (*persistent(facts[GENERATION].system), Label(LOG)):
            # One that was cut off before it got its name is whole or not: mosd knows by its tag.
            for name in (label, Unfinished.of(label)):
                if name in shown.names:
                    try:
                        yield from _open(name, label, key)
                    except MachineOSError as error:
                        yield from ask(Say(f"storage {name} stays closed: {error.told}"))
                        whole = False
        if not whole:
            yield from ask(Say(ADVICE))
        public = public_key(key)
        yield from ask(ForgetSecret(key))
        return Facts().plus(VOLUMES, public)


def _open(name: VolumeName, label: Label, key: Secret) -> Talk[None]:
    device = device_of(name)
    try:
        area = yield from ask(ReadHeader(device, HEADERS_SIZE))
    except OSError as error:
        raise VerificationError(f"{device}: {error.strerror}") from error
    token = read_token(area, what=str(device))
    own = open_token(key, token.sealed, label)
    try:
        yield from ask(OpenVolume(device, name.mapped, token.uuid, own))
    except MachineOSError:
        yield from ask(ForgetSecret(own))
        raise
    yield from ask(ForgetSecret(own))


PHASE = _Phase(
    "volumes",
    modes=RUNS,
    needs=frozenset({FIRST_DOOR, UNSEALED, GENERATION, VOLUMES_BEGUN, MACHINE_KEY}),
    gives=frozenset({VOLUMES}),
)
