from __future__ import annotations

import stat
from pathlib import Path

import pytest

from machineos.core.files import appearing
from machineos.errors import ConflictError


def test_it_appears_whole(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "thing"
    with appearing(final, what="thing") as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text("x")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert not final.exists()
    assert (final / "sub" / "file").read_text() == "x"
    assert [entry.name for entry in final.parent.iterdir()] == ["thing"]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def fail(error: type[BaseException]) -> None:
        with appearing(tmp_path / "thing", what="thing") as folder:
            (folder / "file").write_text("x")
            raise error

    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error):
            fail(error)
    assert list(tmp_path.iterdir()) == []


def test_what_exists_stays(tmp_path: Path) -> None:
    final = tmp_path / "thing"
    final.write_text("mine")
    with pytest.raises(ConflictError), appearing(final, what="thing"):
        pytest.fail("the block ran")
    assert final.read_text() == "mine"


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_comes_meanwhile_stays(kind: str, tmp_path: Path) -> None:
    final = tmp_path / "thing"

    def race() -> None:
        with appearing(final, what="thing"):
            if kind == "folder":
                final.mkdir()
                (final / "other").write_text("theirs")
            else:
                final.write_text("theirs")

    with pytest.raises(ConflictError):
        race()
    assert [entry.name for entry in tmp_path.iterdir()] == ["thing"]
