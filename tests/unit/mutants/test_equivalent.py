"""The list of mutants that change nothing: short, with reasons, and true to the sources."""

from __future__ import annotations

from pathlib import Path

import pytest

from mutants import equivalent
from mutants.operators import mutants
from mutants.sample import everything
from mutants.source import Source

TOP = Path(__file__).resolve().parents[3]
ENTRY = """
[[equivalent]]
path = "m.py"
function = "f"
operator = "call removed"
before = "g(a)"
after = "pass"
reason = "g does nothing"
"""
SOURCE = Source("m.py", b"def f(a):\n    g(a)\n")


def test_an_entry_names_one_mutant() -> None:
    (entry,) = equivalent.read(ENTRY)
    fitting = [one for one in mutants(SOURCE) if entry.fits(one)]
    assert [one.name for one in fitting] == ["m.py:2: call removed: g(a)  ->  pass"]
    assert equivalent.stale([entry], mutants(SOURCE)) == []


@pytest.mark.parametrize(
    "text", [b"def f(a):\n    h(a)\n", b"def f(a):\n    g(a)\n    g(a)\n", b"def h(a):\n    g(a)\n"]
)
def test_an_entry_that_fits_none_or_two_is_stale(text: bytes) -> None:
    (entry,) = equivalent.read(ENTRY)
    assert equivalent.stale([entry], mutants(Source("m.py", text))) == [entry]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ENTRY * 6, "6 mutants are called equivalent; at most 5 may be"),
        (ENTRY.replace("g does nothing", " "), "an equivalent mutant has no reason"),
        (ENTRY + "line = 3\n", "an entry has other keys than a mutant"),
        (ENTRY.replace('after = "pass"\n', ""), "an entry has other keys than a mutant"),
        ("[other]\n", "holds something else"),
    ],
)
def test_a_list_with_faults(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        equivalent.read(text)


def test_an_empty_list_and_a_full_one() -> None:
    assert equivalent.read("") == ()
    assert len(equivalent.read(ENTRY * 5)) == 5


def test_our_own_list_is_true() -> None:
    entries = equivalent.read((TOP / "tests/mutants/equivalent.toml").read_text())
    universe, _ = everything(TOP, {entry.path for entry in entries})
    assert equivalent.stale(entries, universe) == []
