"""A recipe and the recipes that it needs, read from files.

Each file is read once. Which may be read is decided here: the one that the user named, and of those
that recipes name, those below its folder or one that the user allows, links followed. Invariant: at
most ``MAX_FILES`` files of ``MAX_TOTAL`` bytes together are read.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from machineos.build.recipe.recipe import (
    MAX_FILES,
    Document,
    Recipe,
    assemble,
    parse_document,
)
from machineos.build.recipe.substitution import MAX_RECIPE
from machineos.core.files import read_bounded, read_named

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_TOTAL: Final = 4 * MAX_RECIPE


def load_recipe(
    path: Path, *, substitutions: Mapping[str, str], allowed: Sequence[Path] = ()
) -> Recipe:
    """Read the recipe in the file ``path`` and its prerequisites.

    These are below the folder of the recipe, or below one that is ``allowed``. Raises:
    MissingError, DocumentError with every fault of the first file that has one.
    """
    loading = _Loading(path, allowed, substitutions)
    loading.add(path.resolve(), read_named(path, MAX_RECIPE), ())
    return assemble(loading.documents)


class _Loading:
    def __init__(
        self, path: Path, allowed: Sequence[Path], substitutions: Mapping[str, str]
    ) -> None:
        self._path = path
        self._base = path.resolve().parent
        self._allowed = (self._base, *(folder.resolve() for folder in allowed))
        self._substitutions = substitutions
        self._seen: set[Path] = set()
        self._total = 0
        self.documents: list[Document] = []

    def add(self, path: Path, data: bytes, above: tuple[Path, ...]) -> None:
        """Add the file ``path`` after all that it needs; ``above`` are the files that need it."""
        self._seen.add(path)
        self._total += len(data)
        folder = os.path.relpath(path.parent, self._base)
        document = parse_document(
            data,
            name=self._shown(path),
            folder="" if folder == "." else folder,
            substitutions=self._substitutions,
        )
        for index, named in enumerate(document.prerequisites):
            self._prerequisite(document, index, path.parent / named.text, (*above, path))
        self.documents.append(document)

    def _prerequisite(
        self, document: Document, index: int, named: Path, above: tuple[Path, ...]
    ) -> None:
        path = Path(os.path.realpath(named))  # takes a circle of links for what it is
        if path in above:
            way = " -> ".join(self._shown(one) for one in (*above[above.index(path) :], path))
            raise document.refused(index, f"goes in a circle: {way}")
        if not any(path.is_relative_to(folder) for folder in self._allowed):
            message = "leads out of the recipe's folder: if it may be read, --allow-folder"
            raise document.refused(index, f"{message} {path.parent}")
        if path in self._seen:
            return
        if len(self._seen) == MAX_FILES or self._total > MAX_TOTAL:
            raise document.refused(index, f"is too much: {MAX_FILES} recipes, 4 MiB are read")
        if not os.path.isfile(path):  # noqa: PTH113 (a name that is too long is not there)
            raise document.refused(index, "is not there")
        self.add(path, read_bounded(path, MAX_RECIPE), above)

    def _shown(self, path: Path) -> str:
        """A file's name as the user would write it, beside the one that they wrote."""
        if path == self._path.resolve():
            return str(self._path)
        return str(self._path.parent / os.path.relpath(path, self._base))
