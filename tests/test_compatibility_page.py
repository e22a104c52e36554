"""The page of registries and tools is the one that the tests make."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from fakes.habits import REAL, habits, products

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/compatibility.md"
SPEC = importlib.util.spec_from_file_location("compatibility", ROOT / "scripts/compatibility.py")
assert SPEC is not None
compatibility = importlib.util.module_from_spec(SPEC)


@pytest.fixture(autouse=True, scope="module")
def _loaded() -> None:
    assert SPEC is not None
    assert SPEC.loader is not None
    sys.modules[SPEC.name] = compatibility  # its dataclass looks itself up there
    SPEC.loader.exec_module(compatibility)


def test_the_page_is_the_one_that_the_tests_make() -> None:
    """``python scripts/compatibility.py > x && mv x docs/compatibility.md``"""
    text = PAGE.read_text()
    made = compatibility.page(compatibility.shown(), compatibility.by_hand(text))
    assert made == text


def test_each_registry_that_people_asked_for_is_played() -> None:
    wanted = {
        "GitHub", "Google", "Amazon", "GitLab", "Quay", "Harbor", "Artifactory", "Docker Hub",
        "Pulp",
    }  # fmt: skip
    assert set(products()) == wanted
    assert all(len(names) > 1 for names in products().values())
    assert {name for module in habits().values() for name in module.OF} == wanted | {REAL}


def test_a_test_that_shows_nothing_of_registries_names_a_tool(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    text = 'import pytest\n@pytest.mark.works("all")\ndef test_it(product: str) -> None: ...\n'
    (tmp_path / "tests/test_x.py").write_text(text)
    assert [one.what for one in compatibility.shown(tmp_path)] == ["all"]
    (tmp_path / "tests/test_x.py").write_text(text.replace("product", "other"))
    with pytest.raises(ValueError, match="is not run against every registry, and names no tool"):
        compatibility.shown(tmp_path)
