"""What counts as an effect: else the share of lines without them would be a figure of nothing."""

from __future__ import annotations

import pytest

from effects import Module, pure_share, read_module, with_effects


@pytest.mark.parametrize(
    "text",
    [
        "import os",
        "import os.path",
        "from subprocess import run",
        "def f():\n    import socket",
        "open(name)",
        "path.open()",
        "self.layer.path.open('rb')",
        "(root / 'a').read_bytes()",
        "Path('/').is_dir()",
        "places[0].unlink()",
        "def f(path):\n    return [one for one in path.iterdir()]",
        "path.replace(other)",
        "path.resolve()",
        "path.stat().st_size",
        "the_host.read_text()",
        "host.path.read_text()",
    ],
)
def test_what_touches_the_world(text: str) -> None:
    assert read_module("m", text).direct


@pytest.mark.parametrize(
    "text",
    [
        "import json",
        "if TYPE_CHECKING:\n    import os",
        "host.read_text(path)",
        "self._host.unlink(path)",
        "self.host.mkdir(path)",
        "text.replace('a', 'b')",
        "msgspec.structs.replace(one, a=1)",
        "time.replace(tzinfo=None)",
        "registry.resolve(name)",
        "path.name, path.parent / 'x', path.with_suffix('.y'), path.relative_to(root)",
        "read = path.read_text",
        "reopen(name)",
        "repository.open_blob(one)",
    ],
)
def test_what_does_not(text: str) -> None:
    assert not read_module("m", text).direct


def test_an_effect_is_inherited_by_who_imports_it() -> None:
    found = {
        "a": read_module("a", "path.touch()"),
        "b": read_module("b", "import a"),
        "c": read_module("c", "def f():\n    import b\n"),
        "d": read_module("d", "import json"),
    }
    assert with_effects(found) == {"a", "b", "c"}
    assert found["c"] == Module("c", 2, frozenset({"b"}))
    assert pure_share(found) == 1 / 5
