"""Open every volume that the generation names; the kernel keeps their keys, and nobody else.

A header may have been written by root of the last boot: it is read by ``state.volumes.sealed``, and
cryptsetup is given the copy that was read. One that does not open ends no boot: its service is
refused alone, by mosd, which finds no device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.boot.facts import (
    FIRST_DOOR,
    GENERATION,
    MACHINE_KEY,
    RUN,
    RUNS,
    SCRATCH,
    UNSEALED,
    VOLUMES,
    VOLUMES_BEGUN,
    Facts,
    Phase,
)
from machineos.boot.steps import ForgetSecret, ReadHeader, Say, WriteFile
from machineos.boot.volumesteps import ListVolumes, OpenVolume
from machineos.core.steps import Talk, ask
from machineos.document.model.names import Unfinished
from machineos.errors import VerificationError
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
    from machineos.document.model.names import Label, VolumeName
    from machineos.document.state.system import System

HEADER_COPY = RUN / "volume-header"


def persistent(system: System) -> tuple[Label, ...]:
    """Return the labels of the volumes that outlive a boot, sorted."""
    found = (each.storage for each in system.storage)
    return tuple(sorted(item.name for item in found if item.persistent))


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        key = facts[MACHINE_KEY]
        there = yield from ask(ListVolumes(GROUP))
        for label in persistent(facts[GENERATION].system):
            # One that was cut off before it got its name is whole or not: mosd knows by its tag.
            for name in (label, Unfinished.of(label)):
                if name in there:
                    try:
                        yield from _open(name, label, key)
                    except VerificationError as error:
                        yield from ask(Say(f"storage {name} stays closed: {error.message}"))
        public = public_key(key)
        yield from ask(ForgetSecret(key))
        return Facts().plus(VOLUMES, public)


def _open(name: VolumeName, label: Label, key: Secret) -> Talk[None]:
    device = device_of(name)
    try:
        header = yield from ask(ReadHeader(device))
    except OSError as error:
        raise VerificationError(f"{device}: {error.strerror}") from error
    sealed = read_token(header[:HEADERS_SIZE], what=str(device))
    passphrase = open_token(key, sealed, label)
    yield from ask(WriteFile(HEADER_COPY, header, mode=0o600))
    try:
        yield from ask(OpenVolume(device, name.mapped, HEADER_COPY, passphrase))
    except VerificationError:
        yield from ask(ForgetSecret(passphrase))
        raise
    yield from ask(ForgetSecret(passphrase))


PHASE = _Phase(
    "volumes",
    modes=RUNS,
    needs=frozenset({SCRATCH, FIRST_DOOR, UNSEALED, GENERATION, VOLUMES_BEGUN, MACHINE_KEY}),
    gives=frozenset({VOLUMES}),
)
