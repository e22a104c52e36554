"""The last phase: take the mounts along, free the initrd, become systemd."""

from __future__ import annotations

from pathlib import Path

from machineos.boot.facts import (
    BOOTS,
    DEPARTURE,
    DOOR_CLOSED,
    ENFORCING,
    FRESH,
    LOCKED,
    SYSROOT,
    UNPRIVILEGED,
    Facts,
    Phase,
)
from machineos.boot.steps import IsProgram, Move, Say, SwitchRoot
from machineos.core.steps import Talk, ask
from machineos.document.rules.bootable import INIT, Part, require_root_part

_KERNEL = (Path("/dev"), Path("/proc"), Path("/sys"), Path("/run"))


class _Phase(Phase, frozen=True):
    def talk(self, facts: Facts) -> Talk[Facts]:
        departure = facts[DEPARTURE]
        for source in departure.mounts:
            yield from ask(Move(source, SYSROOT / source.relative_to("/")))
        yield from ask(Say(departure.text))
        there = yield from ask(IsProgram(SYSROOT / INIT.removeprefix("/")))
        require_root_part(Part("file", INIT), there=there)
        for source in _KERNEL:
            yield from ask(Move(source, SYSROOT / source.relative_to("/")))
        yield from ask(SwitchRoot(SYSROOT, INIT, departure.arguments))
        return Facts()


PHASE = _Phase(
    "leave",
    modes=BOOTS,
    needs=frozenset({DEPARTURE, FRESH, ENFORCING, LOCKED, UNPRIVILEGED, DOOR_CLOSED}),
    gives=frozenset(),
)
