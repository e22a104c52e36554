from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.core.printable import counted, printable, shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("plain, ö 漢 \\n \\x1b", "plain, ö 漢 \\n \\x1b"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("good\rbad", "good\\rbad"),
        ("\x00\x7f\x85\x9b31m", "\\x00\\x7f\\x85\\x9b31m"),
        ("a\u202egpj.exe", "a\\u202egpj.exe"),
        ("\u2028\ud800\U000e0001", "\\u2028\\ud800\\U000e0001"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters()))
def test_any_text(text: str) -> None:
    shown = printable(text)
    assert all(char.isprintable() or char in "\n\t" for char in shown)
    assert shown.count("\n") == text.count("\n")
    assert printable(shown) == shown
    assert shown.encode().decode() == shown


def test_one_is_not_many() -> None:
    assert [counted(number, "layer") for number in (0, 1, 2)] == ["0 layers", "1 layer", "2 layers"]


def test_what_is_shown_has_no_password_and_moves_no_cursor() -> None:
    assert shown("get https://me:secret@h/x\x1b[2J") == "get https://...@h/x\\x1b[2J"
