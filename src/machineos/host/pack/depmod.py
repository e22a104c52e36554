"""Kernel module dependencies and aliases, as ``depmod`` writes them (modules.dep(5)), and the
firmware that modules name (modinfo(8))."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.core.command import Command
from machineos.errors import MissingError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

TABLES = ("modules.dep", "modules.alias", "modules.builtin")
_TIMEOUT = 120.0


@dataclass(frozen=True, slots=True)
class ModuleTable:
    """``depends``: path of each module -> paths it needs, in the order of loading, all relative to
    the modules folder. ``aliases``: (pattern, module name) in file order. ``builtin``: names."""

    depends: dict[str, tuple[str, ...]]
    aliases: tuple[tuple[str, str], ...]
    builtin: frozenset[str]

    def load_order(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the paths to load for ``names``, each after what it needs; built-in ones vanish.

        Raises: MissingError for a name that this kernel does not have at all.
        """
        by_name = {module_name(path): path for path in self.depends}
        order: dict[str, None] = {}
        for name in names:
            key = name.replace("-", "_")
            if key in by_name:
                order.update(dict.fromkeys((*self.depends[by_name[key]], by_name[key])))
            elif key not in self.builtin:
                raise MissingError(f"this kernel has no module {name}")
        return tuple(order)


def module_name(path: str) -> str:
    """Return the module's name: ``kernel/drivers/md/dm-mod.ko.xz`` -> ``dm_mod``."""
    return path.rsplit("/", 1)[-1].split(".ko", 1)[0].replace("-", "_")


def parse_table(depends: str, aliases: str, builtin: str) -> ModuleTable:
    """Read the texts of modules.dep, modules.alias and modules.builtin."""
    table = {}
    for line in depends.splitlines():
        path, _, needs = line.partition(":")
        table[path] = tuple(reversed(needs.split()))
    pairs = []
    for line in aliases.splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == "alias":
            pairs.append((words[1], words[2]))
    names = frozenset(module_name(line) for line in builtin.splitlines() if line)
    return ModuleTable(table, tuple(pairs), names)


def index_command(root: Path, kernel: str) -> Command:
    """Return the command that indexes the modules of ``kernel`` under ``root``, a file system
    tree: it writes ``TABLES``."""
    return Command(("depmod", "-b", str(root), kernel), _TIMEOUT)


def firmware_command(paths: Iterable[Path]) -> Command:
    """Return the command that prints the firmware files that the modules ``paths`` name, one a
    line, as paths in the firmware folder."""
    return Command(("modinfo", "-F", "firmware", *map(str, paths)), _TIMEOUT)
