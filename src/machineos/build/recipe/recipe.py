"""Recipes: ``stacker.yaml``, parsed strictly into stages.

Owns what a recipe is as a whole: its stages and those of the recipes that it names under
``config.prerequisites``. Invariant: a ``Recipe`` that exists can be built as far as its documents
decide that: every stage it names is there, nothing depends on itself, every key fits its stage's
base, and ``stages`` are in an order in which they can be built.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from machineos.build.recipe import graph
from machineos.build.recipe.grammar import CONFIG, ConfigItem
from machineos.build.recipe.reading import StageReader
from machineos.build.recipe.substitution import substitute
from machineos.core import yamldoc
from machineos.errors import DocumentError, Fault

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from machineos.build.recipe.stage import Stage

MAX_STAGES: Final = 512
MAX_FILES: Final = 64


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole recipe; ``stages`` in an order in which they can be built.

    ``wanted`` are those that a build makes which names none: its own, or all if it has none.
    """

    name: str
    stages: tuple[Stage, ...]
    wanted: tuple[str, ...]

    def closure(self, names: tuple[str, ...] | None) -> tuple[Stage, ...]:
        """Return the stages ``names`` (None: ``wanted``) and all they need, in build order.

        Raises: DocumentError for a name that is not a stage.
        """
        by_name = {stage.name: stage for stage in self.stages}
        left = list(self.wanted if names is None else names)
        faults = [
            Fault(name, 0, f"is not a stage (stages: {', '.join(sorted(by_name))})")
            for name in left
            if name not in by_name
        ]
        if faults:
            raise DocumentError(self.name, faults)
        found: set[str] = set()
        while left:
            name = left.pop()
            if name not in found:
                found.add(name)
                left += by_name[name].needs
        return tuple(stage for stage in self.stages if stage.name in found)


@dataclass(frozen=True, slots=True)
class Document:
    """One file of a recipe, its stages not yet looked at.

    ``folder`` is the file's, relative to that of the recipe which is built. ``prerequisites`` are
    the paths of other recipes, relative to ``folder``.
    """

    name: str
    folder: str
    stages: yamldoc.Mapping
    prerequisites: tuple[yamldoc.Scalar, ...]

    def refused(self, index: int, message: str) -> DocumentError:
        """Return the error for the prerequisite ``index``."""
        node = self.prerequisites[index]
        where = f"{CONFIG}.prerequisites[{index}]"
        return DocumentError(self.name, [Fault(where, node.line, f"{node.text[:80]!r} {message}")])


def parse_document(
    data: bytes, *, name: str, folder: str, substitutions: Mapping[str, str]
) -> Document:
    """Return the file of a recipe whose content is ``data``. Raises: DocumentError."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError(name, [Fault("", 0, "is not UTF-8")]) from error
    node = yamldoc.parse_yaml(substitute(text, substitutions, name=name).encode(), name=name)
    if not isinstance(node, yamldoc.Mapping):
        raise DocumentError(name, [Fault("", node.line, "must be a mapping of stages")])
    stages = {key: value for key, value in node.items.items() if key != CONFIG}
    faults: list[Fault] = []
    paths: tuple[yamldoc.Scalar, ...] = ()
    if CONFIG in node.items:
        paths = _prerequisites(node.items[CONFIG], faults)
    if faults:
        raise DocumentError(name, faults)
    return Document(name, folder, yamldoc.Mapping(stages, node.line, node.key_lines), paths)


def parse_recipe(data: bytes, *, name: str, substitutions: Mapping[str, str]) -> Recipe:
    """Return the recipe in ``data``, a ``stacker.yaml`` that needs no other.

    ``name`` is the file's, for messages. Raises: DocumentError with every fault at once, each with
    path and line (the faults of substitution and of YAML itself come before all others).
    """
    document = parse_document(data, name=name, folder="", substitutions=substitutions)
    if document.prerequisites:
        raise document.refused(0, "cannot be found: this recipe is no file")
    return assemble([document])


def assemble(documents: Sequence[Document]) -> Recipe:
    """Return the recipe of ``documents``, each after those that it needs, the wanted one last.

    Raises: DocumentError with every fault of the first document that has one.
    """
    homes: dict[str, str] = {}
    edges = {
        name: graph.needs(node)
        for document in documents
        for name, node in document.stages.items.items()
    }
    if len(edges) > MAX_STAGES:
        raise DocumentError(documents[-1].name, [Fault("", 0, f"has {MAX_STAGES} stages at most")])
    stages: list[Stage] = []
    for document in documents:
        reader = StageReader(document.stages, folder=document.folder)
        found = [reader.stage(name, node) for name, node in document.stages.items.items()]
        _check_names(document, homes, reader)
        _check_graph(document, edges, reader)
        if reader.faults:
            faults = sorted(reader.faults, key=lambda fault: fault.line)
            raise DocumentError(document.name, faults)
        stages += [stage for stage in found if stage is not None]
    wanted = tuple(documents[-1].stages.items) or tuple(homes)
    return Recipe(documents[-1].name, graph.ordered(stages), wanted)


def _prerequisites(node: yamldoc.Node, faults: list[Fault]) -> tuple[yamldoc.Scalar, ...]:
    if isinstance(node, yamldoc.Mapping) and "from" in node.items:
        message = "is where a recipe names its prerequisites: give the stage another name"
        faults.append(Fault(CONFIG, node.line, message))
        return ()
    config: ConfigItem | None = yamldoc.decode(node, ConfigItem, faults, CONFIG)
    given = node.items.get("prerequisites") if isinstance(node, yamldoc.Mapping) else None
    if config is None or not isinstance(given, yamldoc.Sequence):
        return ()
    if len(given.items) >= MAX_FILES:
        message = f"are too many: {MAX_FILES} recipes are read"
        faults.append(Fault(f"{CONFIG}.prerequisites", given.line, message))
    paths = tuple(item for item in given.items if isinstance(item, yamldoc.Scalar))
    _check_paths(paths, faults)
    return paths


def _check_paths(paths: Sequence[yamldoc.Scalar], faults: list[Fault]) -> None:
    for index, path in enumerate(paths):
        if not path.text or not path.text.isprintable() or "://" in path.text:
            where = f"{CONFIG}.prerequisites[{index}]"
            shown = f"{path.text[:80]!r} is not the path of a recipe"
            faults.append(Fault(where, path.line, shown))


def _check_names(document: Document, homes: dict[str, str], reader: StageReader) -> None:
    """Look for stages that another document has, too, and add the others to ``homes``."""
    for name in document.stages.items:
        if name in homes:
            reader.fault(name, f"is a stage of {homes[name]}, too: give one another name")
        homes.setdefault(name, document.name)


def _check_graph(
    document: Document, edges: Mapping[str, Mapping[str, str]], reader: StageReader
) -> None:
    """Look for unknown stages and circles: in the nodes, so also beside other faults."""
    for name, node in document.stages.items.items():
        needs = graph.needs(node)
        for need, where in needs.items():
            if need not in edges:
                reader.fault(f"{name}.{where}", f"{need[:80]!r} is not a stage of this recipe")
        circle = graph.circle(name, edges)
        if circle and circle[1] in needs:
            way = " -> ".join(circle)
            reader.fault(f"{name}.{needs[circle[1]]}", f"goes in a circle: {way}")
