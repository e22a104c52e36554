"""Strict YAML, and documents decoded into msgspec models with every fault at once.

The composer keeps each scalar the string that was written (``1.10`` stays ``1.10``, ``NO`` stays
``NO``); the model decides its type. Anchors, aliases, tags, merge keys, duplicate keys and second
documents are faults. Every fault carries the path of the value and its line.
"""

from __future__ import annotations

import types
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import yaml

from machineos.errors import DocumentError, Fault

MAX_DEPTH = 32
MAX_NODES = 200_000
_MAX_FAULTS = 20
_TOO_LARGE = "is too large or nested too deeply"
_NULLS = {"", "null", "~", "Null", "NULL"}
_BOOLEANS = {"true": True, "false": False, "True": True, "False": False}


@dataclass(frozen=True, slots=True)
class Scalar:
    """A scalar as written; ``quoted`` tells an empty string from a null."""

    text: str
    line: int
    quoted: bool = False

    @property
    def is_null(self) -> bool:
        """Whether this stands for no value."""
        return not self.quoted and self.text in _NULLS


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list of nodes."""

    items: tuple[Node, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Mapping:
    """A mapping; ``items`` keeps the order of the document, ``key_lines`` the line of each key."""

    items: dict[str, Node]
    line: int
    key_lines: dict[str, int] = field(default_factory=dict)


Node = Scalar | Sequence | Mapping


def parse_yaml(data: bytes, *, name: str, limit: int = 1 << 20) -> Node:
    """Return the one document in ``data``. Raises: DocumentError."""
    if len(data) > limit:
        raise DocumentError(name, [Fault("", 0, f"is larger than {limit} bytes")])
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DocumentError(name, [Fault("", 0, "is not UTF-8")]) from error
    loader = yaml.CSafeLoader(text) if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader(text)
    composer = _Composer()
    try:
        _refuse_aliases(text, name)
        node = loader.get_single_node()
        if node is None:
            raise DocumentError(name, [Fault("", 1, "is empty")])
        result = composer.convert(node, "", 0)
    except yaml.YAMLError as error:
        raise DocumentError(name, [_fault_of(error, text)]) from error
    except RecursionError as error:
        raise DocumentError(name, [Fault("", 0, "is nested too deeply")]) from error
    finally:
        loader.dispose()
    if composer.faults:
        raise DocumentError(name, composer.faults)
    return result


def decode(node: Node, model: Any, faults: list[Fault], path: str = "") -> Any:  # noqa: ANN401
    """Return ``node`` as ``model``, or add to ``faults`` and return None.

    ``model`` is a msgspec Struct, ``str``, ``int``, ``bool``, ``Literal[...]``, ``list[X]``,
    ``tuple[X, ...]``, ``dict[str, X]``, ``X | None``, a union of these with at most one scalar,
    one list and one mapping type, or any type with a classmethod ``parse(text)`` that raises
    ValueError or a MachineOSError.
    """
    return _Decoder(faults).decode(node, model, path)


def line_of(node: Node, path: str) -> int:
    """Return the line of the value at ``path`` (``targets[2].network``); the nearest parent's if
    the value is not there."""
    line = node.line
    for step in path.replace("[", ".[").split("."):
        if not step:
            continue
        child: Node | None = None
        if isinstance(node, Mapping):
            child = node.items.get(step)
            line = node.key_lines.get(step, line)
        elif isinstance(node, Sequence) and step.startswith("["):
            index = int(step[1:-1])
            child = node.items[index] if index < len(node.items) else None
            line = child.line if child is not None else line
        if child is None:
            return line
        node = child
    return line


def _fault_of(error: yaml.YAMLError, text: str) -> Fault:
    if not isinstance(error, yaml.MarkedYAMLError):
        return Fault("", 0, f"is not YAML: {error}")
    line = error.problem_mark.line + 1 if error.problem_mark else 0
    problem = error.problem or error.context or ""
    if "nesting depth" in problem:  # a limit of PyYAML 6.0.4, met while it looks ahead of us
        return Fault("", line, _TOO_LARGE)
    return Fault("", line, f"is not YAML: {_told(problem, error.problem_mark, text)}")


def _told(problem: str, mark: yaml.Mark | None, text: str) -> str:
    """Return what is wrong, with what to do about a character that the eye takes for another."""
    lines = text.splitlines()
    line = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
    found = line[mark.column : mark.column + 1] if mark is not None else ""
    if "tab character" in problem or found == "\t":
        return "a tab stands before the text: indent with spaces"
    if "cannot start any token" in problem and found:
        return f"{found!r} begins no value: put the value in quotes"
    return problem


def _refuse_aliases(text: str, name: str) -> None:
    faults = []
    depth = 0
    loader = yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader
    for count, event in enumerate(yaml.parse(text, Loader=loader)):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if message := _refusal(event):
            faults.append(Fault("", line, message))
        depth += _deeper(event)
        if depth > MAX_DEPTH or count > MAX_NODES or len(faults) > _MAX_FAULTS:
            faults.append(Fault("", line, _TOO_LARGE))
            break
    if faults:
        raise DocumentError(name, faults)


def _refusal(event: yaml.Event) -> str:
    if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
        return "anchors and aliases are not allowed"
    tag = getattr(event, "tag", None)
    return f"the tag {tag} is not allowed" if tag else ""


def _deeper(event: yaml.Event) -> int:
    if isinstance(event, yaml.CollectionStartEvent):
        return 1
    return -1 if isinstance(event, yaml.CollectionEndEvent) else 0


def _kind(model: Any) -> type[Node]:  # noqa: ANN401
    """Return the kind of node that a value of type ``model`` is written as."""
    origin = get_origin(model)
    if origin in {list, tuple}:
        return Sequence
    if origin is dict or (isinstance(model, type) and issubclass(model, msgspec.Struct)):
        return Mapping
    return Scalar


class _Composer:
    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def convert(self, node: yaml.Node, path: str, depth: int) -> Node:
        line = node.start_mark.line + 1
        if isinstance(node, yaml.ScalarNode):
            return Scalar(node.value, line, quoted=node.style in {"'", '"', "|", ">"})
        if isinstance(node, yaml.SequenceNode):
            return Sequence(
                tuple(
                    self.convert(item, f"{path}[{index}]", depth + 1)
                    for index, item in enumerate(node.value)
                ),
                line,
            )
        items: dict[str, Node] = {}
        lines: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.faults.append(Fault(path, key.start_mark.line + 1, "a key is not a string"))
                continue
            child = f"{path}.{key.value}" if path else key.value
            if key.value == "<<" and not key.style:
                self.faults.append(
                    Fault(path, key.start_mark.line + 1, "merge keys are not allowed")
                )
            if key.value in items:
                self.faults.append(Fault(child, key.start_mark.line + 1, "is given twice"))
            items[key.value] = self.convert(value, child, depth + 1)
            lines[key.value] = key.start_mark.line + 1
        return Mapping(items, line, lines)


@dataclass(frozen=True, slots=True)
class _Field:
    """One field of a model: its name there, what it holds, and whether it must be given."""

    name: str
    model: Any
    required: bool


@cache
def _fields(model: type[msgspec.Struct]) -> dict[str, _Field]:
    """Return the fields of a model by the key that a document gives them."""
    hints = get_type_hints(model)
    return {
        item.encode_name: _Field(item.name, hints[item.name], item.required)
        for item in msgspec.structs.fields(model)
    }


class _Decoder:
    def __init__(self, faults: list[Fault]) -> None:
        self._faults = faults

    def fault(self, node: Node, path: str, message: str) -> None:
        self._faults.append(Fault(path, node.line, message))

    def decode(self, node: Node, model: Any, path: str) -> Any:  # noqa: ANN401
        origin = get_origin(model)
        if origin in {Union, types.UnionType}:
            return self._union(node, get_args(model), path)
        if origin is Literal:
            return self._literal(node, get_args(model), path)
        if origin in {list, tuple}:
            return self._sequence(node, get_args(model)[0], origin, path)
        if origin is dict:
            return self._dict(node, get_args(model)[1], path)
        if isinstance(model, type) and issubclass(model, msgspec.Struct):
            return self._struct(node, model, path)
        return self._scalar(node, model, path)

    def _union(self, node: Node, members: tuple[Any, ...], path: str) -> Any:  # noqa: ANN401
        if isinstance(node, Scalar) and node.is_null and type(None) in members:
            return None
        rest = [member for member in members if member is not type(None)]
        fitting = (member for member in rest if _kind(member) is type(node))
        return self.decode(node, next(fitting, rest[0]), path)

    def _literal(self, node: Node, choices: tuple[Any, ...], path: str) -> Any:  # noqa: ANN401
        text = node.text if isinstance(node, Scalar) else None
        for choice in choices:
            if text is not None and text == str(choice):
                return choice
        names = ", ".join(str(choice) for choice in choices)
        shown = repr(text[:60]) if text is not None else "this value"
        self.fault(node, path, f"{shown} is not one of: {names}")
        return None

    def _sequence(self, node: Node, item: Any, kind: Any, path: str) -> Any:  # noqa: ANN401
        if not isinstance(node, Sequence):
            self.fault(node, path, "must be a list")
            return None
        values = (
            self.decode(child, item, f"{path}[{index}]") for index, child in enumerate(node.items)
        )
        return kind(list(values))

    def _dict(self, node: Node, item: Any, path: str) -> Any:  # noqa: ANN401
        if not isinstance(node, Mapping):
            self.fault(node, path, "must be a mapping")
            return None
        return {
            key: self.decode(child, item, f"{path}.{key}" if path else key)
            for key, child in node.items.items()
        }

    def _struct(self, node: Node, model: type[msgspec.Struct], path: str) -> Any:  # noqa: ANN401
        if not isinstance(node, Mapping):
            self.fault(node, path, "must be a mapping")
            return None
        fields = _fields(model)
        for key in node.items:
            if key not in fields:
                known = ", ".join(sorted(fields))
                line = node.key_lines.get(key, node.line)
                child = f"{path}.{key}" if path else key
                self._faults.append(Fault(child, line, f"is not a known key (known: {known})"))
        before = len(self._faults)
        values: dict[str, Any] = {}
        for key, item in fields.items():
            child = f"{path}.{key}" if path else key
            if key in node.items:
                values[item.name] = self.decode(node.items[key], item.model, child)
            elif item.required:
                self.fault(node, child, "is missing")
        if len(self._faults) > before:
            return None
        return model(**values)

    def _boolean(self, node: Scalar, path: str) -> bool | None:
        text = node.text
        known = text in _BOOLEANS
        if known and not node.quoted:
            return _BOOLEANS[text]
        quoted = " in quotes is a text, and" if known else " is"
        self.fault(node, path, f"{text[:60]!r}{quoted} neither true nor false")
        return None

    def _scalar(self, node: Node, model: Any, path: str) -> Any:  # noqa: ANN401
        if not isinstance(node, Scalar):
            self.fault(node, path, "must be a single value")
            return None
        text = node.text
        if model is str:
            return "" if node.is_null else text
        if model is bool:
            return self._boolean(node, path)
        if model is int:
            if text.isascii() and text.removeprefix("-").isdigit() and len(text) <= 19:
                return int(text)
            self.fault(node, path, f"{text[:60]!r} is not a whole number")
            return None
        try:
            return model.parse(text)
        except Exception as error:  # noqa: BLE001 (every way a value type refuses is one fault)
            self.fault(node, path, str(error))
            return None
