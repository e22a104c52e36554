"""docs/attacks.md, made of the tests: what somebody tried who wants the machine, and its end.

A test says of itself what it tries: ``@pytest.mark.attack(WHO, WHAT, END)``, once for each way,
with three plain strings. Nothing is run here; what is on the page is tried whenever the tests run.
Usage: ``python scripts/attacks.py`` prints the page.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
# Who attacks, in the order of the page, and what they have in their hands.
WHO = {
    "disk": "Somebody with the disk, the image store or the EFI partition",
    "firmware": "Somebody at the machine: firmware, its variables, media, the TPM and its bus",
    "registry": "Somebody with the registry, the medium, or the network between",
    "image": "Somebody whose image, recipe or manifest is used",
    "service": "A service that was taken over",
    "root": "Root on the host after the hand-over",
}


@dataclass(frozen=True)
class Attack:
    """One way that was tried, and the test that tries it (``path::name``)."""

    who: str
    what: str
    end: str
    test: str


def attacks(top: Path = TOP) -> list[Attack]:
    """Return every attack that a test names, in the order of files and lines."""
    found: list[Attack] = []
    for path in sorted((top / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                name = f"{path.relative_to(top)}::{node.name}"
                found += [Attack(*said, name) for said in _marks(node)]
    return found


def _marks(function: ast.FunctionDef) -> Iterator[tuple[str, str, str]]:
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.attack":
            who, what, end = (ast.literal_eval(one) for one in decorator.args)
            if who not in WHO:
                raise ValueError(f"{function.name}: {who!r} is none of {', '.join(WHO)}")
            yield who, what, end


def page(found: list[Attack]) -> str:
    """Return the page."""
    text = f"""# Attacks

What was tried by somebody who wants to be root of a machine, or to have what it keeps:
{len(found)} ways, each a test that runs with the others. This page is made of them
(`python scripts/attacks.py`); what is not promised stands in [trust](trust.md).
"""
    for who, title in WHO.items():
        text += f"\n## {title}\n\n| tries | end | test |\n|---|---|---|\n"
        text += "".join(
            f"| {one.what} | {one.end} | `{one.test}` |\n" for one in found if one.who == who
        )
    return text


if __name__ == "__main__":
    print(page(attacks()), end="")
