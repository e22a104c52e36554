"""docs/compatibility.md, made of the tests: which registry, which tool, and what works with it.

A test says of itself what it shows: ``@pytest.mark.works(WHAT)``; with the fixture ``registry`` or
``product`` it is run against each product with all the habits that it was reported to have
(``tests/fakes/habits``), and against a real registry. ``@pytest.mark.works(WHAT, WHO)`` is about
one tool. What was tried by hand is the last section of the page and stays as it stands there.
Usage: ``python scripts/compatibility.py`` prints the page.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TOP / "tests"))

from fakes.habits import REAL, habits, products  # noqa: E402 (the tests are no package)

EVERYWHERE = {"registry", "product"}


@dataclass(frozen=True)
class Shown:
    """What works, with whom (empty: with every registry), and the test (``path::name``)."""

    what: str
    who: str
    test: str


def shown(top: Path = TOP) -> list[Shown]:
    """Return what the tests show, in the order of files and lines."""
    found: list[Shown] = []
    for path in sorted((top / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                found += _marks(node, f"{path.relative_to(top)}::{node.name}")
    return found


def _marks(function: ast.FunctionDef, test: str) -> list[Shown]:
    found = []
    for mark in function.decorator_list:
        if not isinstance(mark, ast.Call) or ast.unparse(mark.func) != "pytest.mark.works":
            continue
        what, who = ([str(ast.literal_eval(one)) for one in mark.args] + [""])[:2]
        if not who and not EVERYWHERE & {argument.arg for argument in function.args.args}:
            raise ValueError(f"{test}: is not run against every registry, and names no tool")
        found.append(Shown(what, who, test))
    return found


def _first(text: str | None) -> str:
    """Return the docstring of a habit as a cell."""
    return " ".join((text or "").split()).rstrip(".").replace("``", "`")


def page(found: list[Shown], by_hand: str) -> str:
    """Return the page."""
    columns = [one for one in found if not one.who]
    text = f"""# Compatibility

This page is made of the tests (`python scripts/compatibility.py`): nothing is in its tables that no
test shows. [Publishing](publish.md) says how one gets there.

## Registries

{REAL} (of Debian) is run for real. Each of the others is played: a small registry that has, all at
once, what people reported of that product. That is less than the product itself, and more than the
specification.

| registry | {" | ".join(one.what for one in columns)} |
|---|{"---|" * len(columns)}
"""
    cells = " | ".join(["yes"] * len(columns))
    text += "".join(f"| {name} | {cells} |\n" for name in (REAL, *products()))
    text += "\n| works | shown by |\n|---|---|\n"
    text += "".join(f"| {one.what} | `{one.test}` |\n" for one in columns)
    text += """
## What registries do in their own way

Each is a file in `tests/fakes/habits`. What `tests/unit/oci/model/test_repository.py` shows works
with each alone, too.

| habit | reported of |
|---|---|
"""
    text += "".join(
        f"| {_first(module.__doc__)} (`{name}`) | {', '.join(module.OF) or '-'} |\n"
        for name, module in habits().items()
    )
    text += "\n## Tools\n\n| tool | works | shown by |\n|---|---|---|\n"
    tools = sorted((one for one in found if one.who), key=lambda one: one.who)
    text += "".join(f"| {one.who} | {one.what} | `{one.test}` |\n" for one in tools)
    return f"{text}\n{by_hand}"


def by_hand(text: str) -> str:
    """Return the part of the page that nothing makes. Raises: ValueError (it has none)."""
    return text[text.index("## Tried by hand") :]


if __name__ == "__main__":
    print(page(shown(), by_hand((TOP / "docs/compatibility.md").read_text())), end="")
