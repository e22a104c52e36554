"""Which modules are looked at: by room, so that a new module is in it on the day it is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from effects import read_modules, with_effects

# What decides about trust, about a boot, about what a service may.
ROOMS = (
    "trust", "boot", "document", "service/plan", "oci/model", "oci/graph", "install", "state",
)  # fmt: skip
# Of these, only the modules that cannot touch the world: what the others do, guests prove.
DECIDING = ("boot", "install", "state")
PACKAGE = Path("src/machineos")


@dataclass(frozen=True)
class Choice:
    """The modules to change (paths from the top of the tree) and those left to the guests."""

    modules: tuple[str, ...]
    left_out: tuple[str, ...]


def room_of(path: str) -> str:
    """Return the room of a module, for counting: its folder in the package."""
    return Path(path).relative_to(PACKAGE).parent.as_posix()


def choose(top: Path, rooms: tuple[str, ...] = ROOMS, *, everything: bool = False) -> Choice:
    """Return the modules of ``rooms``, each a folder or one module of the package.

    ``everything`` takes also what has effects. Raises: ValueError for a room that is not there.
    """
    package = top / PACKAGE
    effectful = frozenset() if everything else with_effects(read_modules(package))
    modules: list[str] = []
    left_out: list[str] = []
    for room in rooms:
        found = sorted(package.glob(f"{room}.py")) or sorted((package / room).rglob("*.py"))
        if not found:
            raise ValueError(f"there is no room {room}")
        for path in found:
            name = path.relative_to(top).as_posix()
            dotted = ".".join(path.relative_to(package.parent).with_suffix("").parts)
            only_acts = room.partition("/")[0] in DECIDING and dotted in effectful
            (left_out if only_acts and not everything else modules).append(name)
    return Choice(tuple(dict.fromkeys(modules)), tuple(dict.fromkeys(left_out)))
