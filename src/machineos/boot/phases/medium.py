"""Find the install medium: by what is on it, not by where it is.

Nothing on it is trusted: what counts is verified against the anchors in the initrd.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.boot.facts import (
    DISK_FLAGS,
    DRIVERS,
    FIRST_DOOR,
    INSTALLS,
    MEDIUM,
    MEDIUM_FOLDER,
    SCRATCH,
    SETTINGS,
    UNSEALED,
    Facts,
    Medium,
    Phase,
)
from machineos.boot.steps import (
    ListDisks,
    ListOptical,
    LoadModules,
    MakeFolder,
    MountDisk,
    ReadFile,
    ReadLabel,
    Unmount,
)
from machineos.boot.waiting import wait_for
from machineos.core.steps import Talk, ask
from machineos.document.between.medium import INDEX_FILE, LABEL, parse_index
from machineos.errors import MachineOSError

if TYPE_CHECKING:
    from pathlib import Path

_LIMIT = 65536


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        yield from ask(LoadModules(facts[SETTINGS].filesystems.get("iso9660", ())))
        yield from ask(MakeFolder(MEDIUM_FOLDER))
        hint = "attach the medium that this image was started from, and start again"
        medium = yield from wait_for(f"the install medium {LABEL}", _look, hint=hint)
        return Facts().plus(MEDIUM, medium)


def _look() -> Talk[Medium | None]:
    """Mount the first medium there is; a disk may only be called like one."""
    devices = (yield from ask(ListOptical())) + (yield from ask(ListDisks()))
    for device in devices:
        if (yield from ask(ReadLabel(device))) == LABEL:
            medium = yield from _mount(device)
            if medium is not None:
                return medium
    return None


def _mount(device: Path) -> Talk[Medium | None]:
    try:
        yield from ask(MountDisk(device, MEDIUM_FOLDER, "iso9660", DISK_FLAGS))
    except MachineOSError:
        return None
    try:
        index = parse_index((yield from ask(ReadFile(MEDIUM_FOLDER / INDEX_FILE, _LIMIT))))
    except (OSError, MachineOSError):
        yield from ask(Unmount(MEDIUM_FOLDER))
        return None
    return Medium(device, index)


PHASE = _Phase(
    "medium",
    modes=INSTALLS,
    needs=frozenset({SETTINGS, SCRATCH, DRIVERS, UNSEALED, FIRST_DOOR}),
    gives=frozenset({MEDIUM}),
)
