"""Rules of the house that no linter knows (CONTRIBUTING): read from the tree as it lies there."""

from __future__ import annotations

import ast
import configparser
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src/machineos"
MOST_LINES = 500
# Longer, each with its reason; nothing is added here that can be split.
LONG = {
    "tests/unit/document/verify/test_published.py": "one table of attacks",
    "tests/vm/test_machine.py": "one machine through its whole life",
}
# Names that only a builder's own configuration may hold; in pieces, so that they are not here.
HOSTS = re.compile(
    r"\b(?:index\.|registry-1\.)?docker\." r"io\b|\b(?:ghcr|quay|gcr)\." r"io\b"
    r"|\bpypi\." r"org\b|\bpythonhosted\." r"org\b|\bdebian\." r"org\b"
)  # fmt: skip
# A folder of one person's machine; the tests of path rules speak of user u and of a quoted /work.
PLACES = re.compile(r"(?<![\w.}/\"])/(?:work|root)/[\w.]+|/home/(?!u\b)\w+")
# What a person calls one registry, which is not where it is.
HUB = {"src/machineos/oci/registry/hub.py"}
GUEST = {"src/machineos/build/os/hostfs/finish"}  # its paths are those of the image


def _files() -> list[Path]:
    folders = ("src", "tests", "bench", "scripts", "docs", "examples", ".ci")
    found = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    found += [path for path in ROOT.iterdir() if path.is_file() and not path.name.startswith(".")]
    return sorted(path for path in found if path.suffix != ".pyc")


FILES = _files()
PYTHON = [path for path in FILES if path.suffix == ".py"]
MODULES = [path for path in PYTHON if path.is_relative_to(SOURCE)]
TESTS = [path for path in PYTHON if path.is_relative_to(ROOT / "tests")]
UNITS = [path for path in (SOURCE / "build/os/hostfs/systemd").iterdir() if path.is_file()]


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        return ""  # an image, not a text


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(_text(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_the_tree_is_there() -> None:
    assert len(MODULES) > 100
    assert len(TESTS) > 50
    assert UNITS


def test_no_file_is_too_long() -> None:
    lines = {_name(path): len(_text(path).splitlines()) for path in PYTHON}
    assert {name for name, count in lines.items() if count > MOST_LINES} == set(LONG)


def test_only_one_module_starts_programs() -> None:
    users = {_name(path) for path in MODULES if "subprocess" in _imports(path)}
    # The second is a program of its own: nothing of the package is there when it runs.
    assert users == {"src/machineos/core/run.py", "src/machineos/host/pack/confine.py"}


def test_no_mocks() -> None:
    for path in TESTS:
        assert not {"unittest.mock", "mock", "pytest_mock"} & _imports(path), _name(path)
        names = {node.arg for node in ast.walk(ast.parse(_text(path))) if isinstance(node, ast.arg)}
        assert not {"monkeypatch", "mocker"} & names, _name(path)


LEAST_SECONDS = 60


def _hasty(call: ast.Call) -> bool:
    """Whether a call gives up, or waits, for a number of seconds that a busy machine may need.

    Less than a second is what is meant to run out.
    """
    if ast.unparse(call.func) == "time.sleep":
        return True
    given = [word.value for word in call.keywords if word.arg in {"timeout", "deadline"}]
    if isinstance(call.func, ast.Attribute) and call.func.attr in {"wait", "join", "settimeout"}:
        given += call.args
    seconds = [value.value for value in given if isinstance(value, ast.Constant)]
    return any(isinstance(one, int | float) and 1 <= one < LEAST_SECONDS for one in seconds)


def test_no_test_depends_on_how_fast_the_machine_is() -> None:
    """Waiting is the task of tests/waiting.py."""
    found = [
        f"{_name(path)}:{node.lineno}: {ast.unparse(node)[:60]}"
        for path in TESTS
        if path.name != "waiting.py"
        for node in ast.walk(ast.parse(_text(path)))
        if isinstance(node, ast.Call) and _hasty(node)
    ]
    assert found == []


def test_every_module_says_what_it_owns() -> None:
    for path in MODULES:
        assert ast.get_docstring(ast.parse(_text(path))), _name(path)


def test_no_module_is_a_drawer() -> None:
    drawers = {"utils", "util", "common", "helpers", "misc"}
    assert not [_name(path) for path in MODULES if {path.stem, path.parent.name} & drawers]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_every_unit_has_a_description(path: Path) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read_string(_text(path))
    assert unit["Unit"]["Description"].strip()


def test_no_host_and_no_place_of_one_machine() -> None:
    faults = [
        f"{_name(path)}:{number}: {found.group()}"
        for path in FILES
        for number, line in enumerate(_text(path).splitlines(), 1)
        for rule in (HOSTS, PLACES)
        if (found := rule.search(line)) and _name(path) not in (GUEST if rule is PLACES else HUB)
    ]
    assert faults == []


def test_every_task_is_in_the_help() -> None:
    text = _text(ROOT / "Makefile")
    phony = set(re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)[0].split())
    assert set(re.findall(r"^([a-z]+):.*## ", text, re.MULTILINE)) == phony
