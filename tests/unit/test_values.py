"""What deciding modules pass around is frozen: nobody changes a plan after it was made."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from test_layers import DECIDES, PACKAGE

# Nodes of a tree that is being built, and fields that are still being read.
GROWING = {"Header", "Inode", "Entry"}


def _sources() -> list[Path]:
    found: set[Path] = set()
    for name in DECIDES:
        path = PACKAGE.parent / name.replace(".", "/")
        found |= set(path.rglob("*.py")) if path.is_dir() else {path.with_suffix(".py")}
    return sorted(found)


def _is_true(call: ast.Call, word: str) -> bool:
    for one in call.keywords:
        if one.arg == word and isinstance(one.value, ast.Constant):
            return one.value.value is True
    return False


def _loose(tree: ast.Module) -> list[str]:
    """The dataclasses and structs that are not frozen, or that could get other fields."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef) or node.name in GROWING:
            continue
        for mark in node.decorator_list:
            text = ast.unparse(mark)
            if not text.startswith("dataclass"):
                continue
            good = isinstance(mark, ast.Call) and _is_true(mark, "frozen")
            if not (good and isinstance(mark, ast.Call) and _is_true(mark, "slots")):
                found.append(node.name)
        if any(ast.unparse(base).endswith("Struct") for base in node.bases):
            call = ast.Call(ast.Name("Struct"), [], node.keywords)
            if not _is_true(call, "frozen"):
                found.append(node.name)
    return found


@pytest.mark.parametrize("path", _sources(), ids=lambda path: path.stem)
def test_every_value_is_frozen_and_has_its_fields_only(path: Path) -> None:
    assert _loose(ast.parse(path.read_text())) == []
