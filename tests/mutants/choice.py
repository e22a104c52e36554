"""Which tests are asked about a mutant, in which order, and how long they may take.

First those that are about the module by their name, then those of its folder, then the others; the
quick before the slow. What acts at import has no line of its own that a test comes by, so there all
tests are asked that run anything of the module or of what imports it, or whose file imports either.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from effects import read_modules
from mutants.rooms import PACKAGE

if TYPE_CHECKING:
    from mutants.operators import Mutant
    from mutants.record import Records

# Seconds of tests, as they took without a mutant: what one test, a first look and all may take.
MOST_OF_ONE = 10.0
FIRST_LOOK = 2.0
MOST_OF_ALL = 40.0


@dataclass(frozen=True)
class Stage:
    """Tests that are run together."""

    files: tuple[str, ...]
    tests: tuple[str, ...]
    seconds: float


class Chooser:
    """Chooses from ``records`` of the tree in ``top``."""

    def __init__(self, top: Path, records: Records) -> None:
        self._records = records
        self._importers: dict[str, set[str]] = {}
        self._files = {file: _imports(top / file) for file in records.files}
        for name, module in read_modules(top / PACKAGE).items():
            for imported in module.imports:
                self._importers.setdefault(imported, set()).add(_path(top, name))

    def stages(self, mutant: Mutant) -> list[Stage]:
        """Return what to run, in turn, until something fails; nothing if no test comes by."""
        seconds = self._records.seconds
        tests = {name for name in self._tests(mutant) if seconds[name] <= MOST_OF_ONE}
        by_file: dict[str, list[str]] = {}
        for name in sorted(tests, key=lambda name: (seconds[name], name)):
            by_file.setdefault(name.partition("::")[0], []).append(name)
        costs = {file: sum(seconds[name] for name in names) for file, names in by_file.items()}
        order = sorted(by_file, key=lambda file: (distance(mutant.path, file), costs[file], file))
        first: list[str] = []
        rest: list[str] = []
        spent = 0.0
        for file in order:
            for name in by_file[file]:
                if spent > MOST_OF_ALL:
                    break
                (first if spent <= FIRST_LOOK else rest).append(name)
                spent += seconds[name]
        return [self._stage(names) for names in (first, rest) if names]

    def _tests(self, mutant: Mutant) -> set[str]:
        if not mutant.at_import:
            return self._records.tests_of(mutant.path, mutant.lines)
        dotted = _dotted(mutant.path)
        paths = {mutant.path, *self._importers.get(dotted, set())}
        names = {dotted, *(_dotted(path) for path in paths)}
        files = {file for file, imported in self._files.items() if names & imported}
        files |= {file for file in self._files if distance(mutant.path, file) == 0}
        about = {name for file in files for name in self._records.files[file]}
        running = (self._records.tests_of_module(path) for path in paths)
        return (about & self._records.seconds.keys()).union(*running)

    def _stage(self, names: list[str]) -> Stage:
        files = dict.fromkeys(name.partition("::")[0] for name in names)
        return Stage(tuple(files), tuple(names), sum(self._records.seconds[one] for one in names))


def distance(module: str, file: str) -> int:
    """Return 0 for a test file about the module, 1 for one of its folder, 2 for any other."""
    inside = Path(module).relative_to(PACKAGE)
    place = Path(file).relative_to("tests/unit")
    if place.parent != inside.parent:
        return 2
    return 0 if place.stem.startswith(f"test_{inside.stem}") else 1


def _imports(path: Path) -> frozenset[str]:
    """Return the modules that a test file imports, and what could be modules."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def _dotted(path: str) -> str:
    """Return the name by which one of our modules is imported."""
    return ".".join(Path(path).relative_to(PACKAGE.parent).with_suffix("").parts)


def _path(top: Path, dotted: str) -> str:
    """Return the file of one of our modules."""
    path = PACKAGE.parent / Path(*dotted.split("."))
    return (path / "__init__.py" if (top / path).is_dir() else path.with_suffix(".py")).as_posix()
