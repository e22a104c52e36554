"""The sample: the same from the same seed, the kinds in turn."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from mutants.operators import CHANGED, OPERATORS, REMOVED, mutants
from mutants.sample import draw, everything
from mutants.source import Source

TEXT = b"""
def f(a, b):
    if a < b:
        g(a, b)
        g(b)
    return [1, 2, 3, 4, 5, 6, 7, 8, 9]
"""


def test_the_same_seed_draws_the_same() -> None:
    source = Source("m.py", TEXT)
    universe, sources = mutants(source), {"m.py": source}
    one = draw(universe, sources, seed=1, count=10)
    assert one == draw(universe, sources, seed=1, count=10)
    assert one != draw(universe, sources, seed=2, count=10)
    assert len(one) == len(set(one)) == 10


def test_the_kinds_take_turns() -> None:
    source = Source("m.py", TEXT)
    universe = mutants(source)
    found = draw(universe, {"m.py": source}, seed=1, count=6)
    assert Counter(one.operator for one in found) == dict.fromkeys(OPERATORS, 1)
    more = Counter(one.operator for one in draw(universe, {"m.py": source}, seed=1, count=12))
    assert more[REMOVED] == 2
    assert more[CHANGED] > 2


def test_a_sample_is_in_order_and_no_larger_than_there_is() -> None:
    source = Source("m.py", TEXT)
    found = draw(mutants(source), {"m.py": source}, seed=3, count=1000)
    assert found == sorted(found, key=lambda one: (one.start, one.end, one.new))
    assert len(found) == len(mutants(source))


def test_what_is_no_other_program_is_not_drawn() -> None:
    source = Source("m.py", b"x = f(-1, -1.0)\n")
    found = draw(mutants(source), {"m.py": source}, seed=1, count=100)
    assert all(one.apply(source.data) != source.data for one in found)


def test_everything_of_several_modules(tmp_path: Path) -> None:
    for name in ("b.py", "a.py"):
        (tmp_path / name).write_text("x = True\n")
    universe, sources = everything(tmp_path, ["b.py", "a.py"])
    assert [one.path for one in universe] == ["b.py", "a.py"]
    assert list(sources) == ["b.py", "a.py"]
