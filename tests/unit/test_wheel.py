"""The wheel: what is installed is the whole package and nothing else, and says that it is typed."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest

from machineos.core.run import run
from waiting import PATIENCE

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of the files in the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        timeout=PATIENCE, cwd=ROOT,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_has_every_file_of_the_package(names: set[str]) -> None:
    package = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src/machineos").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {name for name in names if ".dist-info/" not in name} == package


def test_type_checkers_of_others_read_our_types(names: set[str]) -> None:
    assert "machineos/py.typed" in names
