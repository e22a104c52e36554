"""Records: who came by which line, also through shared fixtures; when a record holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mutants.record import Cache, Records, cheap_files

FILE = "tests/unit/test_a.py"
MODULE = "src/machineos/m.py"


def record(**more: object) -> dict[str, Any]:
    return {
        "tests": {
            f"{FILE}::one": {"ok": True, "seconds": 0.5, "fixtures": ["shared"]},
            f"{FILE}::two": {"ok": True, "seconds": 1.5, "fixtures": []},
            f"{FILE}::root": {"ok": False, "seconds": 9, "fixtures": ["shared"]},
        },
        "lines": {
            MODULE: {
                "1": [f"{FILE}::two"],
                "2": ["fixture shared", f"{FILE}::root"],
                "3": [f"{FILE}::root"],
            },
            FILE: {},
        },
    } | more


def test_a_line_knows_its_tests_and_those_that_share_a_fixture() -> None:
    records = Records()
    records.add(FILE, record())
    assert records.seconds == {f"{FILE}::one": 0.5, f"{FILE}::two": 1.5}
    assert records.left_out == [f"{FILE}::root"]
    assert records.files == {FILE: [f"{FILE}::one", f"{FILE}::root", f"{FILE}::two"]}
    assert records.tests_of(MODULE, [1]) == {f"{FILE}::two"}
    assert records.tests_of(MODULE, [2]) == {f"{FILE}::one"}
    assert records.tests_of(MODULE, range(1, 3)) == {f"{FILE}::one", f"{FILE}::two"}
    assert records.tests_of(MODULE, [3]) == records.tests_of(MODULE, [4]) == set()
    assert records.tests_of("other.py", [1]) == records.tests_of_module("other.py") == set()
    assert records.tests_of_module(MODULE) == {f"{FILE}::one", f"{FILE}::two"}


def test_records_of_several_files_add_up() -> None:
    records = Records()
    records.add(FILE, record())
    other = "tests/unit/test_b.py"
    tests = {f"{other}::x": {"ok": True, "seconds": 1, "fixtures": []}}
    records.add(other, record(tests=tests, lines={MODULE: {"1": [f"{other}::x"]}}))
    assert records.tests_of(MODULE, [1]) == {f"{FILE}::two", f"{other}::x"}


@pytest.fixture
def top(tmp_path: Path) -> Path:
    for name in (FILE, MODULE, "tests/conftest.py", "tests/unit/mutants/test_c.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def test_a_record_is_kept_in_a_file(top: Path, tmp_path: Path) -> None:
    path = tmp_path / "cache/records.json"
    cache = Cache(top, path)
    assert cache.get(FILE) is None
    cache.put(FILE, record())
    cache.save()
    found = Cache(top, path).get(FILE)
    assert found is not None
    assert found["tests"] == record()["tests"]


@pytest.mark.parametrize("changed", [FILE, MODULE, "tests/conftest.py"])
@pytest.mark.parametrize("gone", [False, True])
def test_a_record_holds_until_something_changes(top: Path, changed: str, gone: bool) -> None:
    cache = Cache(top, top / "records.json")
    cache.put(FILE, record())
    (top / "tests/unit/other.py").write_text("x")
    assert cache.get(FILE) is not None
    if gone:
        (top / changed).unlink()
    else:
        (top / changed).write_text("changed")
    assert cache.get(FILE) is None


def test_records_of_another_format_are_forgotten(top: Path) -> None:
    path = top / "records.json"
    path.write_text('{"format": "1", "files": {"a": {}}}')
    assert Cache(top, path).get("a") is None


def test_the_tests_of_this_program_are_not_asked(top: Path) -> None:
    assert cheap_files(top) == [FILE]
