"""The code that makes something is what it imports: on every way, and nothing beside it."""

from __future__ import annotations

import pytest

from machineos.build.os.imports import followed

FILES = {
    "__init__.py": b"",
    "errors.py": b"",
    "room/__init__.py": b"",
    "room/a.py": b"",
    "room/b.py": b"",
    "other/__init__.py": b"from machineos.room import a",
    "other/c.py": b"",
}
ABOVE = {"__init__.py", "room/__init__.py"}


def made_by(text: str, **more: str) -> set[str]:
    """Return what is found beside the file that has ``text``, and the folders above it."""
    files = FILES | {"room/maker.py": text.encode()}
    files |= {f"room/{name}.py": other.encode() for name, other in more.items()}
    return {*followed(files, ["room/maker.py"])} - ABOVE - {"room/maker.py"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", set()),
        ("import os, json\nfrom pathlib import Path", set()),
        ("import machineos", set()),
        ("from machineos.errors import ToolError", {"errors.py"}),
        ("from machineos import errors as e", {"errors.py"}),
        ("import machineos.room.a, machineos.room.b", {"room/a.py", "room/b.py"}),
        ("from machineos.room import a, b", {"room/a.py", "room/b.py"}),
        ("from machineos.room.a import a, b", {"room/a.py"}),
        ("from . import a", {"room/a.py"}),
        ("from .a import x", {"room/a.py"}),
        ("from .. import errors", {"errors.py"}),
        ("from ..room.a import x", {"room/a.py"}),
        ("def f():\n    if x:\n        from machineos.room import a", {"room/a.py"}),
        ("try:\n    import machineos.room.a\nexcept ImportError:\n    pass", {"room/a.py"}),
        ("if TYPE_CHECKING:\n    import machineos.room.a", set()),
        ("if TYPE_CHECKING:\n    import os\nelse:\n    import machineos.room.a", {"room/a.py"}),
        ("if not TYPE_CHECKING:\n    import machineos.room.a", {"room/a.py"}),
        ("import machineostic.room.a", set()),
        # The file of a folder is run too, and with it what it imports.
        ("import machineos.other.c", {"other/__init__.py", "other/c.py", "room/a.py"}),
    ],
)
def test_what_an_import_runs(text: str, found: set[str]) -> None:
    assert made_by(text) == found


def test_imports_are_followed_and_may_go_in_circles() -> None:
    one, two = "from machineos.room import two", "from machineos.room import a, maker"
    assert made_by("from machineos.room import one", one=one, two=two) == {
        "room/one.py", "room/two.py", "room/a.py",
    }  # fmt: skip


def test_the_start_and_the_folders_above_it() -> None:
    assert followed(FILES, []) == frozenset()
    assert followed(FILES, ["errors.py"]) == {"__init__.py", "errors.py"}
    assert followed(FILES, ["room/b.py", "errors.py"]) == {*ABOVE, "room/b.py", "errors.py"}
    assert followed(FILES, ["room/__init__.py"]) == ABOVE


def test_a_start_that_is_not_there() -> None:
    with pytest.raises(KeyError, match="room/none"):
        followed(FILES, ["room/none.py"])
