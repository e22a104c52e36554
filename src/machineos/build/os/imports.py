"""Which files of this package a file is run by: its imports, followed all the way down.

Owns what "the code that makes an artifact" is, so that nobody has to list it. Imports inside
functions count, those for types only do not. Touches nothing: the sources are given.
"""

from __future__ import annotations

import ast
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_ROOT = "machineos"


def followed(sources: Mapping[str, bytes], start: Iterable[str]) -> frozenset[str]:
    """Return ``start`` and what it imports, directly or not, with the ``__init__.py`` above each.

    ``sources`` are the files of this package by their paths in it. Raises: KeyError for a file of
    ``start`` that is not among them.
    """
    found: set[str] = set()
    waiting = set(start)
    while waiting:
        path = waiting.pop()
        found.add(path)
        module = _module(path)
        names = (module, *_named(sources[path], module))
        waiting |= {file for name in names for file in _files(name) if file in sources} - found
    return frozenset(found)


@cache
def _named(source: bytes, module: str) -> frozenset[str]:
    return frozenset(_imports(ast.parse(source), module))


def _module(path: str) -> str:
    return f"{_ROOT}.{path.removesuffix('.py').replace('/', '.')}"


def _files(name: str) -> Iterator[str]:
    """Yield the files that an import of ``name`` may run; the last part may be no module."""
    root, *parts = name.split(".")
    if root == _ROOT:
        for length in range(len(parts) + 1):
            path = "/".join(parts[:length])
            yield from (f"{path}.py", f"{path}/__init__.py".lstrip("/"))


def _imports(node: ast.AST, module: str) -> Iterator[str]:
    """Yield the dotted names that ``module`` imports, which may be names of modules."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = f"{module.rsplit('.', node.level)[0]}." if node.level else ""
        place = f"{above}{node.module or ''}".removesuffix(".")
        yield from (f"{place}.{alias.name}" for alias in node.names)
    for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    children = node.orelse if isinstance(node, ast.If) and for_types else ast.iter_child_nodes(node)
    for child in children:
        yield from _imports(child, module)
