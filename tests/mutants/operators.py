"""The six kinds of mutant, from a module's tree to exact changes of its text.

condition negated   an ``if``, ``while``, conditional value or filter; one part of ``and``/``or``; a
                    comparison that is returned, kept or passed on
boundary moved      ``<`` becomes ``<=`` and so on; a number that is compared with moves by one
call removed        a call whose value nobody uses
argument swapped    two neighbours of one kind, positional or by keyword
constant changed    numbers by one, strings and bytes by a character, truth values to the other
early return        a function gives the empty value of its type before it does anything
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from mutants.source import FUNCTION, Place, Source, call_name, is_talk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NEGATED, BOUNDARY, REMOVED, SWAPPED, CHANGED, RETURNED = OPERATORS = (
    "condition negated",
    "boundary moved",
    "call removed",
    "argument swapped",
    "constant changed",
    "early return",
)
_STRICTER = {b"<": b"<=", b"<=": b"<", b">": b">=", b">=": b">"}
_SIGN = re.compile(rb"<=|>=|<|>")
_OTHER = {
    ast.Eq: (rb"==", b"!="), ast.NotEq: (rb"!=", b"=="),
    ast.In: (rb"\bin\b", b"not in"), ast.NotIn: (rb"\bnot\s+in\b", b"in"),
    ast.Is: (rb"\bis\b", b"is not"), ast.IsNot: (rb"\bis\s+not\b", b"is"),
}  # fmt: skip
# Either order is the same, or a mistake that no program would survive its first call with.
_SYMMETRIC = frozenset({
    "min", "max", "compare_digest", "gcd", "isinstance", "issubclass", "cast", "getattr", "hasattr",
})  # fmt: skip
_APART = (
    ast.Starred, ast.Tuple, ast.List, ast.Dict, ast.Set, ast.ListComp, ast.SetComp, ast.DictComp,
    ast.GeneratorExp, ast.Lambda,
)  # fmt: skip
_EMPTY = {
    "bool": ("True", "False"), "int": ("0",), "str": ('""',), "bytes": ('b""',), "list": ("[]",),
    "dict": ("{}",), "tuple": ("()",), "set": ("set()",), "frozenset": ("frozenset()",),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one file: ``data[start:end]`` becomes ``new``."""

    path: str
    operator: str
    function: str
    line: int
    start: int
    end: int
    new: bytes
    # The lines whose tests can notice it, and whether it acts when the module is imported.
    lines: range
    at_import: bool
    before: str
    after: str

    @property
    def name(self) -> str:
        """Where and what, on one line."""
        return f"{self.path}:{self.line}: {self.operator}: {self.before}  ->  {self.after}"

    def apply(self, data: bytes) -> bytes:
        """Return the file with the change."""
        return data[: self.start] + self.new + data[self.end :]


_Change = tuple[int, int, bytes]


def mutants(source: Source) -> list[Mutant]:
    """Return every mutant of a module, in the order of the text."""
    found: dict[tuple[int, int, bytes], Mutant] = {}
    for place in source.places():
        for operator, changes in _MAKERS.items():
            for start, end, new in changes(source, place):
                made = _mutant(source, place, operator, (start, end, new))
                found.setdefault((start, end, new), made)
    return sorted(found.values(), key=lambda one: (one.start, one.end, one.new))


def is_valid(mutant: Mutant, source: Source) -> bool:
    """Whether the change gives another program, and one that can be compiled."""
    changed = mutant.apply(source.data)
    try:
        tree = ast.parse(changed)
        compile(tree, mutant.path, "exec")
    except (SyntaxError, ValueError):
        return False
    return ast.dump(tree) != ast.dump(source.tree)


def _mutant(source: Source, place: Place, operator: str, change: _Change) -> Mutant:
    start, end, new = change
    line = source.line_of(start)
    before, after = source.data[start:end], new
    if operator == RETURNED:
        before = b"def " + place.function.rpartition(".")[2].encode()
    elif b"\n" not in before:
        head, tail = source.around(start, end)
        before, after = head + before + tail, head + after + tail
    return Mutant(
        source.path, operator, place.function, line, start, end, new,
        _lines(place, operator), place.at_import, _shown(before), _shown(after),
    )  # fmt: skip


def _lines(place: Place, operator: str) -> range:
    """Return the lines of the statement: of its head only, when it has a body.

    What returns early is noticed by whoever comes by anything of the function.
    """
    statement = place.statement
    assert statement.end_lineno is not None
    if operator == RETURNED and isinstance(place.parent, FUNCTION):
        assert place.parent.end_lineno is not None
        return range(statement.lineno, place.parent.end_lineno + 1)
    body = getattr(statement, "body", None)
    end = body[0].lineno if isinstance(body, list) and body else statement.end_lineno + 1
    return range(statement.lineno, max(end, statement.lineno + 1))


def _shown(text: bytes) -> str:
    return " ".join(text.decode(errors="replace").split())[:160]


# -- conditions and boundaries -------------------------------------------------------------------


def _negated(source: Source, place: Place) -> Iterator[_Change]:
    node = place.node
    if not isinstance(node, ast.expr) or not _is_condition(place):
        return
    start, end = source.span(node)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield start, end, b"bool(" + source.text(node.operand) + b")"
    elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _OTHER:
        pattern, new = _OTHER[type(node.ops[0])]
        yield from _between(source, node.left, node.comparators[0], pattern, new)
    else:
        yield start, end, b"(not (" + source.text(node) + b"))"


def _is_condition(place: Place) -> bool:
    node, parent = place.node, place.parent
    if isinstance(parent, ast.If | ast.While | ast.IfExp | ast.Assert):
        return node is parent.test
    if isinstance(parent, ast.comprehension):
        return node in parent.ifs
    if isinstance(parent, ast.match_case):
        return node is parent.guard
    asked = isinstance(node, ast.Compare) or (
        isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)
    )
    if isinstance(parent, ast.BoolOp):
        above = Place(parent, place.above[:-1])
        return asked or _is_condition(above)
    if isinstance(parent, ast.UnaryOp):
        return False  # negated as a whole
    return asked


def _between(
    source: Source, left: ast.expr, right: ast.expr, pattern: bytes, new: bytes
) -> Iterator[_Change]:
    """Replace the operator that stands between two operands."""
    _, start = source.span(left)
    end, _ = source.span(right)
    match = re.search(pattern, source.data[start:end])
    if match:
        yield start + match.start(), start + match.end(), new


def _moved(source: Source, place: Place) -> Iterator[_Change]:
    node = place.node
    if isinstance(node, ast.Compare):
        operands = [node.left, *node.comparators]
        for left, right, kind in zip(operands, operands[1:], node.ops, strict=False):
            if not isinstance(kind, ast.Lt | ast.LtE | ast.Gt | ast.GtE):
                continue
            _, start = source.span(left)
            end, _ = source.span(right)
            match = _SIGN.search(source.data[start:end])
            if match:
                yield start + match.start(), start + match.end(), _STRICTER[match.group()]
    elif _is_number(node) and isinstance(place.parent, ast.Compare):
        yield from _steps(source, node)


# -- calls, arguments, constants, functions ------------------------------------------------------


def _removed(source: Source, place: Place) -> Iterator[_Change]:
    node = place.node
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await):
        yield (*source.span(node), b"pass")


def _swapped(source: Source, place: Place) -> Iterator[_Change]:
    node = place.node
    if not isinstance(node, ast.Call) or call_name(node) in _SYMMETRIC or is_talk(place):
        return
    if call_name(node).endswith("Error") or call_name(node) == "Fault":
        return
    named = [keyword.value for keyword in node.keywords if keyword.arg]
    for values in (node.args, named):
        for left, right in pairwise(values):
            if _kind(left) is None or _kind(left) != _kind(right):
                continue
            if source.text(left) == source.text(right):
                continue
            (start, middle), (other, end) = source.span(left), source.span(right)
            between = source.data[middle:other]
            yield start, end, source.text(right) + between + source.text(left)


def _kind(node: ast.expr) -> str | None:
    """Return what two arguments must have in common to be swapped, None for what is never.

    Types are not known here, so kinds are guessed: what looks alike may be alike.
    """
    if isinstance(node, ast.Constant):
        return type(node.value).__name__
    if isinstance(node, ast.JoinedStr):
        return "str"
    if isinstance(node, ast.Name | ast.Attribute):
        name = node.id if isinstance(node, ast.Name) else node.attr
        return "constant" if name.isupper() else "name"
    return None if isinstance(node, _APART) else type(node).__name__


def _changed(source: Source, place: Place) -> Iterator[_Change]:
    node = place.node
    if isinstance(node, ast.JoinedStr) and not is_talk(place):
        yield from _changed_parts(source, node)
    if not isinstance(node, ast.Constant):
        return
    value = node.value
    if isinstance(value, bool):
        yield (*source.span(node), str(not value).encode())
    elif isinstance(value, str | bytes) and not is_talk(place):
        yield (*source.span(node), repr(_another(value)).encode())
    elif _is_number(node) and not isinstance(place.parent, ast.Compare):
        yield from _steps(source, node)


def _another(value: str | bytes) -> str | bytes:
    """Return a value that differs in its last character, and is of the same kind if it can be."""
    if isinstance(value, bytes):
        return value[:-1] + bytes([value[-1] ^ 1]) if value else b"~"
    last = value[-1:]
    if not last.isascii() or not last.isalnum():
        return f"{value}~"
    return value[:-1] + chr(ord(last) + (-1 if last in "zZ9" else 1))


def _changed_parts(source: Source, node: ast.JoinedStr) -> Iterator[_Change]:
    """Change one literal part of an f-string; written anew, since parts have no place of theirs."""
    for number, part in enumerate(node.values):
        if not isinstance(part, ast.Constant):
            continue
        parts = list(node.values)
        parts[number] = ast.Constant(_another(str(part.value)))
        try:
            text = ast.unparse(ast.JoinedStr(parts))
        except ValueError:
            continue  # quotes within quotes, which this Python cannot write
        yield (*source.span(node), text.encode())


def _is_number(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) in {int, float}


def _steps(source: Source, node: ast.AST) -> Iterator[_Change]:
    assert isinstance(node, ast.Constant)
    assert isinstance(node.value, int | float)
    for step in (1, -1):
        value = node.value + step
        yield (*source.span(node), f"({value})".encode() if value < 0 else str(value).encode())


def _returned(source: Source, place: Place) -> Iterator[_Change]:
    function = place.parent
    if not isinstance(function, FUNCTION):
        return
    first = _first(function.body)
    if first is None or first is not place.node or isinstance(first, ast.Pass):
        return
    start, _ = source.span(first)
    decorators = getattr(first, "decorator_list", [])
    if decorators:
        start = source.span(decorators[0])[0] - 1  # the sign before it
    column = start - (source.data.rfind(b"\n", 0, start) + 1)
    if source.data[start - column : start].strip():
        return  # on the line of its head, which the house's format never does
    for value in _empty_values(function):
        given = f"return {value}".strip()
        if ast.unparse(first) != given:
            yield start, start, given.encode() + b"\n" + b" " * column


def _first(body: list[ast.stmt]) -> ast.stmt | None:
    """Return the first statement that is not the docstring."""
    for statement in body:
        if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
            return statement
    return None


def _empty_values(function: ast.FunctionDef | ast.AsyncFunctionDef) -> tuple[str, ...]:
    if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in _own(function)):
        return ("",)
    returns = function.returns
    if returns is None or (isinstance(returns, ast.Constant) and returns.value is None):
        return ("",)
    if isinstance(returns, ast.Subscript):
        returns = returns.value
    name = returns.id if isinstance(returns, ast.Name) else ""
    return _EMPTY.get(name, ("None",))


def _own(function: ast.AST) -> Iterator[ast.AST]:
    """Yield what belongs to a function, without the functions inside it."""
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, (*FUNCTION, ast.Lambda)):
            yield child
            yield from _own(child)


_MAKERS: dict[str, Callable[[Source, Place], Iterator[_Change]]] = {
    NEGATED: _negated,
    BOUNDARY: _moved,
    REMOVED: _removed,
    SWAPPED: _swapped,
    CHANGED: _changed,
    RETURNED: _returned,
}
