"""Which tests are asked: those about the module first, the quick before the slow, not for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from changed import replace
from mutants.choice import FIRST_LOOK, MOST_OF_ALL, MOST_OF_ONE, Chooser, Stage, distance
from mutants.operators import Mutant
from mutants.record import Records

MODULE = "src/machineos/trust/keys/x509.py"
ABOUT = "tests/unit/trust/keys/test_x509.py"
NEAR = "tests/unit/trust/keys/test_signer.py"
FAR = "tests/unit/cli/test_trust.py"
OVER = "tests/unit/cli/test_user.py"
MUTANT = Mutant(MODULE, "k", "f", 5, 0, 1, b"", range(5, 7), False, "", "")


@pytest.fixture
def top(tmp_path: Path) -> Path:
    for name, text in (
        (MODULE, ""),
        ("src/machineos/trust/keys/user.py", "from machineos.trust.keys import x509"),
        (ABOUT, ""),
        (NEAR, "from machineos.trust.keys.x509 import issue"),
        (FAR, "import machineos.trust"),
        (OVER, "from machineos.trust.keys.user import SOMETHING"),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def records(lines: dict[str, dict[int, list[str]]], **seconds: float) -> Records:
    known = {"about": ABOUT, "near": NEAR, "far": FAR, "over": OVER}
    names = {name: f"{known[name.partition('_')[0]]}::{name}" for name in seconds}
    files = {file: sorted(one for one in names.values() if file in one) for file in known.values()}
    return Records(
        seconds={names[name]: spent for name, spent in seconds.items()},
        lines={
            path: {line: {names[one] for one in found} for line, found in known_lines.items()}
            for path, known_lines in lines.items()
        },
        files=files,
    )


def chosen(top: Path, known: Records, mutant: Mutant = MUTANT) -> list[list[str]]:
    stages = Chooser(top, known).stages(mutant)
    return [[name.partition("::")[2] for name in stage.tests] for stage in stages]


@pytest.mark.parametrize(
    ("file", "wanted"),
    [
        (ABOUT, 0),
        ("tests/unit/trust/keys/test_x509_faults.py", 0),
        (NEAR, 1),
        (FAR, 2),
        ("tests/unit/trust/test_x509.py", 2),
    ],
)
def test_how_far_a_test_is_from_a_module(file: str, wanted: int) -> None:
    assert distance(MODULE, file) == wanted


def test_only_tests_that_come_by_are_asked(top: Path) -> None:
    lines = {MODULE: {4: ["about_a"], 5: ["about_b"], 6: ["near_c"], 7: ["far_d"]}}
    known = records(lines, about_a=0.1, about_b=0.1, near_c=0.1, far_d=0.1)
    assert chosen(top, known) == [["about_b", "near_c"]]
    assert chosen(top, known, replace(MUTANT, lines=range(90, 91))) == []


def test_the_order_is_distance_then_time(top: Path) -> None:
    lines = {MODULE: {5: ["far_a", "near_b", "near_c", "about_d", "about_e"]}}
    known = records(lines, far_a=0.1, near_b=0.2, near_c=0.1, about_d=0.3, about_e=0.2)
    assert chosen(top, known) == [["about_e", "about_d", "near_c", "near_b", "far_a"]]


def test_a_first_look_and_then_the_rest(top: Path) -> None:
    lines = {MODULE: {5: ["about_a", "about_b", "about_c", "about_d"]}}
    half = FIRST_LOOK / 2
    known = records(lines, about_a=half, about_b=half + 0.1, about_c=half + 0.2, about_d=9)
    assert chosen(top, known) == [["about_a", "about_b"], ["about_c", "about_d"]]
    first, rest = Chooser(top, known).stages(MUTANT)
    assert first == Stage((ABOUT,), (f"{ABOUT}::about_a", f"{ABOUT}::about_b"), 2 * half + 0.1)
    assert rest.seconds == half + 0.2 + 9


def test_a_test_that_takes_long_is_not_cheap(top: Path) -> None:
    known = records(
        {MODULE: {5: ["about_a", "about_b"]}}, about_a=MOST_OF_ONE, about_b=MOST_OF_ONE + 0.1
    )
    assert chosen(top, known) == [["about_a"]]


def test_all_together_may_not_take_for_ever(top: Path) -> None:
    names = [f"about_{number}" for number in range(10)]
    known = records({MODULE: {5: names}}, **dict.fromkeys(names, 9.0))
    asked = [name for stage in chosen(top, known) for name in stage]
    assert len(asked) == MOST_OF_ALL // 9 + 1


def test_what_acts_at_import_is_asked_of_all_that_use_it(top: Path) -> None:
    """By running the module or what imports it, by importing either, or by being about it."""
    at_import = replace(MUTANT, at_import=True)
    lines = {
        MODULE: {90: ["far_runs"]},
        "src/machineos/trust/keys/user.py": {1: ["far_uses"]},
        "src/machineos/other.py": {1: ["far_other"]},
    }
    known = records(lines, far_runs=1, far_uses=2, far_other=3, about_it=4, near_it=5, over_it=6)
    asked = {name for stage in chosen(top, known, at_import) for name in stage}
    assert asked == {"far_runs", "far_uses", "about_it", "near_it", "over_it"}


def test_a_test_that_does_not_pass_is_not_asked(top: Path) -> None:
    known = records({MODULE: {}}, about_a=1)
    known.files[ABOUT].append(f"{ABOUT}::about_bad")
    assert chosen(top, known, replace(MUTANT, at_import=True)) == [["about_a"]]
