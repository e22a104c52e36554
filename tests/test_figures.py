"""The figures that the house holds itself to (CONTRIBUTING), measured on the tree as it lies."""

from __future__ import annotations

from pathlib import Path

from radon.complexity import cc_visit

from effects import SOURCE, pure_share, read_modules

ROOT = Path(__file__).parent.parent
# Radon counts boolean operators, which the linter's own measure does not see.
MOST_COMPLEX = 12
LEAST_PURE = 0.60
LEAST_TESTS = 1.2


def lines(folder: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in folder.rglob("*.py"))


def test_no_function_is_too_complex() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{block.lineno}: {block.name} {block.complexity}"
        for path in sorted(SOURCE.rglob("*.py"))
        for block in cc_visit(path.read_text())
        if block.complexity > MOST_COMPLEX
    ]
    assert found == []


def test_most_lines_are_in_modules_without_effects() -> None:
    assert pure_share(read_modules()) >= LEAST_PURE


def test_there_are_more_lines_of_tests_than_of_code() -> None:
    assert lines(ROOT / "tests") >= LEAST_TESTS * lines(SOURCE)
