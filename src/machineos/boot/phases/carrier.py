"""Read the device identity that this machine is to be given, from the disk that carries it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.boot.facts import (
    CARRIER,
    DISK_FLAGS,
    DRIVERS,
    NEW_IDENTITY,
    PROVISIONS,
    RUN,
    SCRATCH,
    SETTINGS,
    Facts,
    NewIdentity,
    Phase,
)
from machineos.boot.steps import (
    ListDisks,
    LoadModules,
    MakeFolder,
    MountCarrier,
    ReadCarrierLabel,
    ReadFile,
    ReadSecret,
    Unmount,
)
from machineos.boot.waiting import wait_for
from machineos.core.steps import Talk, ask
from machineos.errors import MachineOSError

if TYPE_CHECKING:
    from pathlib import Path

LABEL = "trust-data"
PRIVATE_KEY = "privkey.pem"
FOLDER = RUN / "identity"
_LIMIT = 65536


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        yield from ask(LoadModules(facts[SETTINGS].filesystems.get("vfat", ())))
        yield from ask(MakeFolder(FOLDER))
        device = yield from wait_for(
            f"the disk {LABEL} with the device identity",
            _look,
            hint="make it with `trust sudi`, attach it beside this medium, and start again",
        )
        yield from ask(MountCarrier(device, FOLDER, "vfat", DISK_FLAGS))
        try:
            certificate = yield from ask(ReadFile(FOLDER / "cert.pem", _LIMIT))
            private_key = yield from ask(ReadSecret(FOLDER / PRIVATE_KEY, _LIMIT))
        except (OSError, MachineOSError):
            yield from ask(Unmount(FOLDER))
            raise
        yield from ask(Unmount(FOLDER))
        identity = NewIdentity(certificate, private_key)
        return Facts().plus(NEW_IDENTITY, identity).plus(CARRIER, device)


def _look() -> Talk[Path | None]:
    for device in (yield from ask(ListDisks())):
        if (yield from ask(ReadCarrierLabel(device))) == LABEL:
            return device
    return None


PHASE = _Phase(
    "carrier",
    modes=PROVISIONS,
    needs=frozenset({SETTINGS, SCRATCH, DRIVERS}),
    gives=frozenset({CARRIER, NEW_IDENTITY}),
)
