"""The page of attacks is the one that the tests make."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("attacks", ROOT / "scripts/attacks.py")
assert SPEC is not None
attacks = importlib.util.module_from_spec(SPEC)


@pytest.fixture(autouse=True, scope="module")
def _loaded() -> None:
    assert SPEC is not None
    assert SPEC.loader is not None
    sys.modules[SPEC.name] = attacks  # its dataclass looks itself up there
    SPEC.loader.exec_module(attacks)


def test_the_page_is_the_one_that_the_tests_make() -> None:
    """``python scripts/attacks.py > docs/attacks.md``"""
    made = attacks.page(attacks.attacks())
    assert made.splitlines() == (ROOT / "docs/attacks.md").read_text().splitlines()


def test_each_attacker_tried_something() -> None:
    found = attacks.attacks()
    assert len(found) >= 40
    assert {one.who for one in found} == set(attacks.WHO)
    assert len({one.what for one in found}) == len(found)


def test_a_test_that_names_nobody_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    text = 'import pytest\n@pytest.mark.attack("who", "w", "e")\ndef test_it() -> None: ...\n'
    (tmp_path / "tests/test_x.py").write_text(text)
    with pytest.raises(ValueError, match="test_it: 'who' is none of disk, firmware"):
        attacks.attacks(tmp_path)
