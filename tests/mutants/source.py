"""One module as text and tree: where each node stands, what a test run would say about it.

Positions are offsets into the bytes of the file, so a mutant changes exactly what it names and
keeps every line where it was.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
# Words of these functions are for people; what they say is not a rule.
_TALK = frozenset({
    "say", "tell", "log", "print", "echo", "secho", "note", "warn", "warning", "info", "debug",
    "progress",
})  # fmt: skip
_TALK_KEYWORDS = frozenset({"hint", "help", "what", "description", "epilog", "metavar"})
# Options of a class or of zip that check the programmer, not the input.
_CLASS_KEYWORDS = frozenset({"frozen", "slots", "repr", "eq", "order", "kw_only", "strict"})
_TYPE_CALLS = frozenset({"TypeVar", "NewType", "ParamSpec"})


@dataclass(frozen=True)
class Place:
    """A node and what stands around it, from the module down to its parent."""

    node: ast.AST
    above: tuple[ast.AST, ...]

    @property
    def parent(self) -> ast.AST:
        """What the node is a part of."""
        return self.above[-1]

    @property
    def function(self) -> str:
        """The dotted name of the function or class around the node; empty in the module."""
        names = [one.name for one in self.above if isinstance(one, (*FUNCTION, ast.ClassDef))]
        return ".".join(names)

    @property
    def statement(self) -> ast.stmt:
        """The innermost statement that the node is or belongs to."""
        return next(one for one in (self.node, *reversed(self.above)) if isinstance(one, ast.stmt))

    def within(self, *kinds: type[ast.AST]) -> bool:
        """Whether something of ``kinds`` stands around the node."""
        return any(isinstance(one, kinds) for one in self.above)

    @property
    def at_import(self) -> bool:
        """Whether the node is evaluated when the module is imported, and never again."""
        chain = (*self.above, self.node)
        for outer, inner in pairwise(chain):
            if isinstance(outer, FUNCTION):
                return not any(inner is one for one in outer.body)
            if isinstance(outer, ast.Lambda):
                return inner is not outer.body
        return True


class Source:
    """A module: its bytes, its tree, and the nodes that may be changed."""

    def __init__(self, path: str, data: bytes) -> None:
        self.path = path
        self.data = data
        self.tree = ast.parse(data)
        self._starts = [0]
        for line in data.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        """Return where ``node`` starts and ends, in bytes."""
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self._starts[node.lineno - 1] + node.col_offset
        return start, self._starts[node.end_lineno - 1] + node.end_col_offset

    def text(self, node: ast.expr | ast.stmt) -> bytes:
        """Return what stands there."""
        start, end = self.span(node)
        return self.data[start:end]

    def line_of(self, offset: int) -> int:
        """Return the number of the line that holds ``offset``, from 1."""
        return sum(1 for start in self._starts if start <= offset)

    def around(self, start: int, end: int) -> tuple[bytes, bytes]:
        """Return what stands before ``start`` and after ``end`` on the same line."""
        first, last = self.data.rfind(b"\n", 0, start) + 1, self.data.find(b"\n", end)
        return self.data[first:start], self.data[end : last if last >= 0 else len(self.data)]

    def places(self) -> Iterator[Place]:
        """Yield what may be changed: no annotation, no docstring, nothing for types only."""
        yield from _walk(self.tree, ())


def call_name(node: ast.AST) -> str:
    """Return the last part of the name that a call calls; empty for anything else."""
    if not isinstance(node, ast.Call):
        return ""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def is_talk(place: Place) -> bool:
    """Whether a string there is only said to a person: in an error, a log, a help text."""
    chain = (*place.above, place.node)
    for outer, inner in pairwise(chain):
        if isinstance(outer, ast.Raise) or (isinstance(outer, ast.Assert) and inner is outer.msg):
            return True
        if isinstance(outer, ast.keyword) and outer.arg in _TALK_KEYWORDS:
            return True
        name = call_name(outer)
        if name in _TALK or name.endswith("Error") or name == "Fault":
            return True
    return False


def _walk(node: ast.AST, above: tuple[ast.AST, ...]) -> Iterator[Place]:
    for child in ast.iter_child_nodes(node):
        if _is_left_out(child, node):
            continue
        yield Place(child, (*above, node))
        # What an f-string computes has no place of its own before Python 3.12.
        if not isinstance(child, ast.JoinedStr):
            yield from _walk(child, (*above, node))


def _is_left_out(node: ast.AST, parent: ast.AST) -> bool:
    if isinstance(node, ast.Import | ast.ImportFrom | ast.alias | ast.arguments):
        # Defaults are values; what they belong to are names and annotations.
        return not isinstance(node, ast.arguments)
    if isinstance(parent, ast.arguments):
        return isinstance(node, ast.arg)
    return _is_for_types(node, parent) or _is_text_or_option(node, parent)


def _is_for_types(node: ast.AST, parent: ast.AST) -> bool:
    if isinstance(parent, ast.AnnAssign) and node is parent.annotation:
        return True
    if isinstance(parent, FUNCTION) and (node is parent.returns or node in parent.decorator_list):
        return True
    if isinstance(parent, ast.ClassDef) and node in parent.decorator_list:
        return True
    if isinstance(node, ast.Subscript):
        return isinstance(node.value, ast.Name) and node.value.id == "Literal"
    if isinstance(node, ast.If):
        return any(name in ast.dump(node.test) for name in ("TYPE_CHECKING", "'__name__'"))
    return call_name(node) in _TYPE_CALLS


def _is_text_or_option(node: ast.AST, parent: ast.AST) -> bool:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True  # a docstring, or three dots
    if isinstance(node, ast.keyword):
        return node.arg in _CLASS_KEYWORDS
    if isinstance(node, ast.Assign):
        names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        return bool({"__all__", "__slots__"} & set(names))
    return call_name(parent) == "cast" and isinstance(parent, ast.Call) and node is parent.args[0]
