"""Tables, errors and folders as values."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from machineos.cli import shape
from machineos.errors import (
    DocumentError,
    Fault,
    MachineOSError,
    MissingError,
    SpaceError,
    UsageError,
)


def test_a_table_is_as_wide_as_its_widest_cells() -> None:
    assert shape.table(("NAME", "X"), [("a", "long"), ("longer", "")]) == [
        "NAME    X",
        "a       long",
        "longer",
    ]
    assert shape.table(("NAME", "STATUS"), []) == ["NAME  STATUS"]


def test_json_keeps_the_order_and_writes_paths_as_text() -> None:
    text = shape.json_text({"b": Path("/x"), "a": [1]})
    assert text == '{\n  "b": "/x",\n  "a": [\n    1\n  ]\n}'


def test_folders_follow_the_xdg_specification() -> None:
    home = shape.home_of({"HOME": "/home/u", "XDG_CACHE_HOME": "/c", "XDG_STATE_HOME": "rel"}, 7)
    assert home == shape.Home(
        data=Path("/home/u/.local/share"),
        config=Path("/home/u/.config"),
        state=Path("/home/u/.local/state"),
        runtime=Path("/run/user/7"),
        cache=Path("/c"),
        user=Path("/home/u"),
    )
    assert home.keysets == Path("/home/u/.local/share/machine/trust/keys")
    names = ("DATA_HOME", "CONFIG_HOME", "STATE_HOME", "RUNTIME_DIR", "CACHE_HOME")
    given = shape.home_of({f"XDG_{name}": f"/{name}" for name in names}, 0, "/root")
    found = (given.data, given.config, given.state, given.runtime, given.cache)
    assert found == tuple(Path(f"/{name}") for name in names)
    assert given.user == Path("/root")


def test_an_error_as_text_says_what_to_do_on_a_line_of_its_own() -> None:
    assert shape.error_text(MissingError("no x", hint="make it"), "mosb") == (
        "mosb: no x\nmosb: make it"
    )
    assert shape.error_text(MissingError("no x"), "mosb") == "mosb: no x"


def test_an_error_as_json_has_every_fault() -> None:
    plain = shape.error_json(MissingError("no x", hint="make it"))
    assert plain == {"error": "MissingError", "message": "no x", "hint": "make it"}
    document = DocumentError("a.yaml", [Fault("b.c", 3, "is odd")])
    body = shape.error_json(document)
    assert body["faults"] == [{"path": "b.c", "line": 3, "message": "is odd"}]
    assert json.loads(shape.json_text(body))["error"] == "DocumentError"


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (OSError(errno.EACCES, "Permission denied", "/x"), MachineOSError, "/x: Permission denied"),
        (OSError(errno.ENOTDIR, "Not a directory", b"/\xff"), MachineOSError, "Not a directory"),
        (OSError("broken"), MachineOSError, "broken"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), SpaceError, "/x: No space left"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), SpaceError, "Disk quota exceeded"),
        (OSError(errno.EBADF, "Bad file descriptor", 7), MachineOSError, "Bad file descriptor"),
    ],
)
def test_what_the_system_refuses_is_said_in_its_words(
    error: OSError, kind: type[MachineOSError], text: str
) -> None:
    found = shape.refused_by_system(error)
    assert type(found) is kind
    assert text in found.message


def test_a_user_without_home_has_the_one_of_his_record() -> None:
    assert shape.home_of({}, 7, "/srv/seven").user == Path("/srv/seven")
    assert shape.home_of({"HOME": "/home/u"}, 7, "/srv/seven").user == Path("/home/u")
    with pytest.raises(UsageError, match="HOME is not set, and the system knows no user 77777"):
        shape.home_of({}, 77777)


def test_no_json_tells_a_password() -> None:
    found = json.loads(shape.json_text({"url": "https://me:secret@h/x", "image": "h/x@sha256:ab"}))
    assert found == {"url": "https://...@h/x", "image": "h/x@sha256:ab"}
