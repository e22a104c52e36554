"""A small tree from end to end: recorded, changed, judged; and nothing is left behind."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mutants.choice import Chooser
from mutants.operators import Mutant, mutants
from mutants.record import Records
from mutants.source import Source
from mutants.workers import (
    KILLED,
    LATE,
    SLOWNESS,
    SURVIVED,
    UNSEEN,
    Verdict,
    Worker,
    Workers,
)

HERE = Path(__file__).resolve().parents[1]
MODULE = "src/machineos/trust/m.py"
FILE = "tests/unit/trust/test_m.py"
TEXT = """\
LIMIT = 3


def small(number: int) -> bool:
    return number < LIMIT


def count(number: int) -> int:
    while number > 0:
        number -= 1
    return number


def said(words: list[str]) -> None:
    words.append("a")


def unused() -> int:
    return 1
"""
TESTS = """\
import subprocess, sys
import pytest
from machineos.trust import m

@pytest.fixture(scope="module")
def shared() -> list[str]:
    words: list[str] = []
    m.said(words)
    return words

def test_first(shared): pass
def test_second(shared): assert isinstance(shared, list)
def test_small(): assert m.small(2) and not m.small(3)
def test_count(): assert m.count(1) == 0
def test_behind():
    subprocess.Popen(["sleep", "MARK"], start_new_session=True)
    assert m.LIMIT != 2
@pytest.mark.root
def test_root(): m.unused()
def test_outside():
    code = "from machineos.trust import m; print(m.small(2), m.__file__)"
    out = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={})
    assert out.stdout.startswith("True ")
"""
CONFIG = '[tool.pytest.ini_options]\nmarkers = ["root", "vm"]\n'


@pytest.fixture(scope="module")
def mark(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A number of seconds that nothing else on the machine sleeps."""
    return f"{1000 + hash(str(tmp_path_factory.getbasetemp())) % 1000000 / 1000:.3f}1"


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory, mark: str) -> Path:
    top = tmp_path_factory.mktemp("top")
    for name, text in (
        ("src/machineos/__init__.py", ""),
        ("src/machineos/trust/__init__.py", ""),
        (MODULE, TEXT),
        (FILE, TESTS.replace("MARK", mark)),
        ("tests/conftest.py", ""),
        ("pyproject.toml", CONFIG),
        (".git/config", "not copied"),
    ):
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    shutil.copytree(HERE / "mutants", top / "tests/mutants")
    shutil.copyfile(HERE / "effects.py", top / "tests/effects.py")
    return top


@pytest.fixture(scope="module")
def worker(top: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    made = Worker(top, tmp_path_factory.mktemp("w") / "0")
    yield made
    made.close(now=False)


@pytest.fixture(scope="module")
def record(worker: Worker) -> dict[str, Any]:
    return worker.record(FILE)


@pytest.fixture(scope="module")
def records(record: dict[str, Any]) -> Records:
    records = Records()
    records.add(FILE, record)
    return records


def mutant(after: str) -> Mutant:
    (found,) = [one for one in mutants(Source(MODULE, TEXT.encode())) if one.after == after]
    return found


def judged(worker: Worker, records: Records, after: str) -> Verdict:
    return worker.judge(mutant(after), Chooser(worker.tree.root, records), records)


def test_a_record_has_tests_times_and_lines(record: dict[str, Any]) -> None:
    names = {name.partition("::")[2]: known["ok"] for name, known in record["tests"].items()}
    assert names == {
        "test_first": True, "test_second": True, "test_small": True, "test_count": True,
        "test_behind": True, "test_root": False, "test_outside": True,
    }  # fmt: skip
    assert all(known["seconds"] >= 0 for known in record["tests"].values())
    assert set(record["lines"]) >= {MODULE, FILE}
    lines = record["lines"][MODULE]
    assert lines["5"] == [f"{FILE}::test_small"]
    assert lines["15"] == ["fixture shared"]
    assert "1" not in lines  # nobody's line: it is run by the import


def test_who_shares_a_fixture_came_by_what_it_did(records: Records) -> None:
    assert records.tests_of(MODULE, [15]) == {f"{FILE}::test_first", f"{FILE}::test_second"}
    assert records.left_out == [f"{FILE}::test_root"]


def test_a_mutant_is_killed_by_the_test_that_notices(worker: Worker, records: Records) -> None:
    found = judged(worker, records, "return number <= LIMIT")
    assert (found.outcome, found.by) == (KILLED, f"{FILE}::test_small")
    assert found.dead
    assert (worker.tree.root / MODULE).read_text() == TEXT


def test_a_mutant_that_acts_at_import_is_killed(worker: Worker, records: Records) -> None:
    found = judged(worker, records, "LIMIT = 2")
    assert (found.outcome, found.by) in {
        (KILLED, f"{FILE}::test_small"), (KILLED, f"{FILE}::test_behind"),
        (KILLED, f"{FILE}::test_outside"),
    }  # fmt: skip


def test_a_mutant_that_nobody_notices_survives(worker: Worker, records: Records) -> None:
    for after in ("words.append('b')", "pass", "return"):
        found = judged(worker, records, after)
        assert (found.outcome, found.by, found.dead) == (SURVIVED, "", False)


def test_a_line_that_only_root_comes_by_is_unseen(worker: Worker, records: Records) -> None:
    found = judged(worker, records, "return 2")
    assert (found.outcome, found.dead) == (UNSEEN, False)


def test_programs_see_the_mutant_and_the_copy(worker: Worker, record: dict[str, Any]) -> None:
    changed = mutant("return number <= LIMIT").apply(TEXT.encode()).replace(b"<= LIMIT", b"> LIMIT")
    worker.tree.write(MODULE, changed)
    try:
        answer = worker.run(
            files=[FILE], tests=[f"{FILE}::test_outside"], known=list(record["tests"]), seconds=600
        )
    finally:
        worker.tree.restore(MODULE)
    assert (answer["ended"], answer["failed"]) == ("failed", f"{FILE}::test_outside")


def test_a_module_that_cannot_be_imported_is_noticed(worker: Worker) -> None:
    worker.tree.write(MODULE, b"raise SystemError")
    try:
        answer = worker.run(files=[FILE], tests=[f"{FILE}::test_small"], known=[], seconds=600)
    finally:
        worker.tree.restore(MODULE)
    assert answer == {"ended": "failed", "failed": FILE}


def test_a_test_with_a_new_name_is_run_too(worker: Worker) -> None:
    answer = worker.run(files=[FILE], tests=[f"{FILE}::gone"], known=[f"{FILE}::gone"], seconds=600)
    assert answer["ended"] == "passed"
    known = [f"{FILE}::test_{name}" for name in ("first", "second", "root", "behind", "outside")]
    worker.tree.write(MODULE, TEXT.replace("return number < LIMIT", "return 1 / 0").encode())
    try:
        answer = worker.run(files=[FILE], tests=[f"{FILE}::gone"], known=known, seconds=600)
    finally:
        worker.tree.restore(MODULE)
    assert answer["failed"] == f"{FILE}::test_small"


def test_nothing_that_a_test_started_lives_on(
    worker: Worker, record: dict[str, Any], mark: str
) -> None:
    tests = [f"{FILE}::test_behind"]
    answer = worker.run(files=[FILE], tests=tests, known=list(record["tests"]), seconds=600)
    assert answer["ended"] == "passed"
    running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [one for one in running if mark.encode() in one]


def test_a_mutant_that_hangs_is_ended(top: Path, records: Records, tmp_path: Path) -> None:
    worker = Worker(top, tmp_path / "0", start=3)
    try:
        found = judged(worker, records, "number -= 0")
        assert (found.outcome, found.dead) == (LATE, True)
    finally:
        worker.close(now=False)


class Slow(Worker):
    """On a machine where nothing ends in time, but for what has more of it."""

    tried: tuple[float, ...] = ()

    def run(self, **job: object) -> dict[str, Any]:
        seconds = job["seconds"]
        assert isinstance(seconds, float)
        self.tried = (*self.tried, seconds)
        return {"ended": "late" if seconds <= self.tried[0] else "passed"}


def test_a_slow_machine_makes_no_mutant_late(top: Path, records: Records, tmp_path: Path) -> None:
    worker = Slow(top, tmp_path / "0", start=1)
    try:
        found = judged(worker, records, "pass")
    finally:
        worker.close(now=False)
    assert found.outcome == SURVIVED
    assert worker.tried == pytest.approx([worker.tried[0] * n for n in (1, 1, SLOWNESS)])


def test_a_file_that_cannot_be_run_says_why(worker: Worker) -> None:
    with pytest.raises(RuntimeError, match=r"tests/unit/nowhere.py cannot be recorded"):
        worker.record("tests/unit/nowhere.py")


def test_the_copy_is_an_environment_of_its_own(worker: Worker, top: Path) -> None:
    root = worker.tree.root
    assert not (root / ".git").exists()
    assert (root / ".venv/pyvenv.cfg").is_file()
    assert (root / ".venv/bin/python").resolve() == Path(sys.executable).resolve()
    script = (root / ".venv/bin/pytest").read_text()
    assert script.startswith(f"#!{root}/.venv/bin/python\n")
    links = [path.name for path in (root / ".venv").glob("lib/*/site-packages/*machineos*.pth")]
    assert links == ["machineos.pth"]


def test_workers_share_what_there_is_to_do(top: Path, tmp_path: Path) -> None:
    done: list[tuple[int, str]] = []
    with Workers(top, tmp_path, 2) as workers:
        workers.each(
            range(5),
            lambda worker, number: worker.log() + "x" * number,
            lambda number, result: done.append((number, result)),
        )
        assert sorted(done) == [(number, "x" * number) for number in range(5)]
        with pytest.raises(ZeroDivisionError):
            workers.each([1, 0], lambda _, number: 1 // number, lambda *_: None)
