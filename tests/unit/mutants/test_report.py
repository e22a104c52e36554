"""What a run says, on a terminal, as JSON and as a page."""

from __future__ import annotations

import json

import pytest

from mutants import report
from mutants.equivalent import Equivalent
from mutants.operators import CHANGED, NEGATED, Mutant
from mutants.workers import KILLED, LATE, SURVIVED, UNSEEN, Verdict


def verdict(outcome: str, path: str = "trust/a.py", operator: str = CHANGED) -> Verdict:
    mutant = Mutant(
        f"src/machineos/{path}", operator, "f", 3, 0, 1, b"", range(3, 4), False, "a `b`", "c"
    )
    return Verdict(mutant, outcome, "tests/unit/a.py::b" if outcome == KILLED else "")


RESULT = report.Result(
    7,
    99,
    (
        *[verdict(KILLED)] * 16,
        verdict(LATE),
        verdict(KILLED, "boot/b.py", NEGATED),
        verdict(SURVIVED, "boot/b.py"),
        verdict(UNSEEN, "boot/b.py"),
    ),
    (Equivalent("m.py", "f", NEGATED, "x", "y", "they are the same"),),
    ("src/machineos/boot/host.py",),
)


def test_a_table_has_a_row_for_each_room_and_each_kind() -> None:
    assert report.table(RESULT, by="room") == [("boot", 3, 1, 0, 2), ("trust", 17, 16, 1, 0)]
    assert report.table(RESULT, by="operator") == [
        (NEGATED, 1, 1, 0, 0), (CHANGED, 19, 16, 1, 2),
    ]  # fmt: skip


def test_the_share_counts_what_hung_as_noticed() -> None:
    assert RESULT.share == pytest.approx(0.9)
    assert not RESULT.good
    assert [one.outcome for one in RESULT.survivors] == [SURVIVED, UNSEEN]


@pytest.mark.parametrize(("dead", "good"), [(18, False), (19, True), (20, True)])
def test_95_of_100_are_needed(dead: int, good: bool) -> None:
    verdicts = [verdict(KILLED)] * dead + [verdict(SURVIVED)] * (20 - dead)
    assert report.Result(1, 1, tuple(verdicts)).good is good


def test_an_empty_sample_is_good() -> None:
    assert report.Result(1, 0, ()).good


def test_the_terminal_names_every_survivor() -> None:
    lines = report.text(RESULT).splitlines()
    assert lines[1].split() == ["boot", "3", "1", "0", "2"]
    assert lines[-3:] == [
        "survived: src/machineos/boot/b.py:3: constant changed: a `b`  ->  c",
        "survived: src/machineos/boot/b.py:3: constant changed: a `b`  ->  c"
        " (no cheap test comes by)",
        "18 of 20 mutants were noticed (90.0%), 1 of them only because they hung; 95% are needed",
    ]


def test_json_has_every_verdict_and_can_be_tried_again() -> None:
    document = json.loads(json.dumps(report.document(RESULT)))
    assert (document["seed"], document["universe"], document["mutants"]) == (7, 99, 20)
    assert (document["share"], document["good"], document["equivalent"]) == (0.9, False, 1)
    assert document["rooms"][0] == {
        "name": "boot", "mutants": 3, "killed": 1, "late": 0, "survived": 2,
    }  # fmt: skip
    assert document["verdicts"][0] == {
        "path": "src/machineos/trust/a.py",
        "line": 3,
        "function": "f",
        "operator": CHANGED,
        "before": "a `b`",
        "after": "c",
        "outcome": KILLED,
        "by": "tests/unit/a.py::b",
    }
    assert report.survivors(document) == {report.key(RESULT.survivors[0].mutant)}


def test_the_page_has_numbers_names_and_reasons() -> None:
    page = report.page(RESULT)
    assert page.startswith("# Mutants\n\nWritten by `make mutants`.")
    assert "\n| boot | 3 | 1 | 0 | 2 |\n| trust | 17 | 16 | 1 | 0 |\n" in page
    assert "90.0%), 1 of them only because they hung; 95% are needed. Seed 7, from 99" in page
    assert "- `src/machineos/boot/b.py:3: constant changed: a 'b'  ->  c`\n" in page
    assert "- `m.py: condition negated: x  ->  y`: they are the same\n" in page
    assert page.endswith("- `src/machineos/boot/host.py`\n")
    empty = report.page(report.Result(1, 0, ()))
    assert "None in this sample." in empty
