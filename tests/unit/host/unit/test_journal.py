"""Journals of an earlier boot get the names that journald gives to what it does not trust."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from machineos.host.unit.journal import aside, set_aside

NUMBER = bytes.fromhex("0123456789abcdef")


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("system.journal", "system@000000000000002a-0123456789abcdef.journal~"),
        ("user-1000.journal", "user-1000@000000000000002a-0123456789abcdef.journal~"),
        ("system@0123-4-5.journal", None),
        ("system@4-5.journal~", None),
        ("system.journal~", None),
        ("fss", None),
        ("x" * 247 + ".journal", "x" * 128 + "@000000000000002a-0123456789abcdef.journal~"),
    ],
)
def test_what_is_in_use_is_set_aside(name: str, new: str | None) -> None:
    assert aside(name, 42, NUMBER) == new


@pytest.mark.attack(
    "disk",
    "leaves links and pipes among the journals of the log, for journald of the next boot to open",
    "they are renamed unopened, and no link is followed",
)
def test_nothing_is_opened_and_no_link_is_followed(tmp_path: Path) -> None:
    journals, elsewhere = tmp_path / "journal", tmp_path / "elsewhere"
    (journals / "machine").mkdir(parents=True)
    elsewhere.mkdir()
    (elsewhere / "system.journal").write_bytes(b"kept")
    (journals / "link").symlink_to(elsewhere)
    (journals / "file").touch()
    (journals / "machine/system.journal").symlink_to(elsewhere / "system.journal")
    os.mkfifo(journals / "machine/user-1.journal")
    (journals / "machine/user-2.journal").mkdir()
    set_aside(journals)
    assert (elsewhere / "system.journal").read_bytes() == b"kept"
    names = sorted(path.name for path in (journals / "machine").iterdir())
    assert [name.partition("@")[0] for name in names] == ["system", "user-1", "user-2"]
    assert all(name.endswith(".journal~") for name in names)
    set_aside(journals)
    assert sorted(path.name for path in (journals / "machine").iterdir()) == names
