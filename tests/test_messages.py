"""No message shows the insides of a value: found from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent / "src/machineos"
TREES = {path: ast.parse(path.read_text()) for path in SOURCE.rglob("*.py")}
# What has a text of its own without saying so in its class.
TEXTS = {"str", "Enum", "StrEnum", "IntEnum", "int", "Protocol", "Exception", "NewType"}
# Modules of libraries whose errors show their objects: only what lies below them is told.
LIBRARIES = {"urllib3", "msgspec", "requests", "http"}


def bases(node: ast.ClassDef) -> set[str]:
    return {ast.unparse(base).rpartition(".")[2].partition("[")[0] for base in node.bases}


def mute() -> set[str]:
    """Return the classes of ours that nobody wrote a text for: f"{value}" shows their fields."""
    found = {
        node.name: node
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    speaking = {
        name
        for name, node in found.items()
        if any(
            isinstance(item, ast.FunctionDef) and item.name in {"__str__", "__format__"}
            for item in node.body
        )
    }
    silent = set()
    for name, node in found.items():
        above, todo = set[str](), bases(node)
        while todo:
            one = todo.pop()
            above.add(one)
            todo |= bases(found[one]) - above if one in found else set()
        if name not in speaking and not above & (speaking | TEXTS) and not name.endswith("Error"):
            silent.add(name)
    return silent


def annotated(function: ast.FunctionDef) -> dict[str, str]:
    """Return the classes of the parameters and of the annotated names of a function."""
    arguments = function.args
    found = {
        one.arg: one.annotation
        for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
        if one.annotation is not None
    }
    for node in ast.walk(function):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = node.annotation
    return {name: ast.unparse(one).strip("'\"") for name, one in found.items()}


def aliases(path: Path) -> set[str]:
    """Return the names that stand for something else in a module, whatever a class is called."""
    return {
        target.id
        for node in TREES[path].body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def formatted(function: ast.FunctionDef) -> Iterator[ast.FormattedValue]:
    for node in ast.walk(function):
        if isinstance(node, ast.FormattedValue):
            yield node


def functions() -> Iterator[tuple[Path, ast.FunctionDef]]:
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                yield path, node


def test_no_message_shows_the_fields_of_a_value() -> None:
    silent = mute()
    assert {"Disk", "Partition", "Command"} <= silent
    assert not silent & {"Digest", "Reference", "ImageSource", "RegistryLocation", "Fault"}
    found = []
    for path, function in functions():
        types = annotated(function)
        found += [
            f"{path.relative_to(SOURCE)}:{value.lineno}: {{{value.value.id}}} is a {name}"
            for value in formatted(function)
            if isinstance(value.value, ast.Name)
            and (name := types.get(value.value.id, "").partition(" | ")[0])
            in silent - aliases(path)
        ]
    assert found == []


def test_no_error_of_a_library_is_told_with_its_objects() -> None:
    """urllib3 says "HTTPConnection(host='h', port=1): ..." """
    found = []
    for path, tree in TREES.items():
        for handler in ast.walk(tree):
            if not isinstance(handler, ast.ExceptHandler) or handler.type is None:
                continue
            kinds = {ast.unparse(handler.type).strip("(").partition(".")[0]}
            if not kinds & LIBRARIES or handler.name is None:
                continue
            found += [
                f"{path.relative_to(SOURCE)}:{value.lineno}"
                for value in ast.walk(handler)
                if isinstance(value, ast.FormattedValue)
                and isinstance(value.value, ast.Name)
                and value.value.id == handler.name
                and "SSL" not in ast.unparse(handler.type)  # these are the system's own words
            ]
    assert found == []
