"""The grammar of names: both sides of each bound."""

from __future__ import annotations

import pytest

from machineos.core.word import Word
from machineos.document.model.names import (
    GroupName,
    Label,
    ProductName,
    ServiceName,
    Unfinished,
    Version,
    VolumeName,
)

NEVER = ("", ".", "..", "-x", ".x", "_x", "a/b", "a\0b", "a\n", "a b\n", "é", "../x", "a:b")
KINDS = {
    ServiceName: ("a service name", 63, ("a", "0", "a.b_c-d", "zot"), ("A", "aB", "a b", "a+")),
    Version: ("a version", 64, ("1", "v0.1.0", "1.0~rc1", "1.0+git_a-b", "A"), ("~1", "1 0")),
    GroupName: ("a group name", 63, ("a", "A", "0", "a.B_c-d"), ("a b", "a+", "a~")),
    Label: ("a label", 36, ("a", "A", "0", "a.B_c-d"), ("a b", "a+")),
    VolumeName: ("a name of a volume", 36, ("a", "A", "0", "a.B_c-d", "a+new"), ("a b", "a+")),
    ProductName: ("a product", 128, ("a", "My Product 2", "a.b_c-d"), (" a", "a+", "a/b")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_name_may_be(kind: type[Word]) -> None:
    what, longest, good, bad = KINDS[kind]
    for text in (*good, "a" * longest):
        assert kind(text) == text
    for text in (*NEVER, *bad, "a" * (longest + 1)):
        assert kind.problem(text), text
    assert kind.problem("a/b") == f"'a/b' is not {what} ({kind.PATTERN})"
    assert kind.problem("") == "is missing or empty"


def test_an_unfinished_volume_is_named_after_its_label() -> None:
    longest = "a" * 36
    for text in ("a", "A.b_c-d", longest):
        found = Unfinished.of(Label(text))
        assert type(found) is Unfinished
        assert found == f"{text}+new"
        assert VolumeName(found) == found
        assert Label.problem(found)
    for text in (*NEVER, "a", "+new", "a.new", "anew", "a+new ", "a+new+new", f"{longest}a+new"):
        assert Unfinished.problem(text), text
    assert (
        Unfinished.problem("a")
        == f"'a' is not a name of an unfinished volume ({Label.PATTERN}\\+new)"
    )


def test_each_label_can_be_the_name_of_a_volume() -> None:
    assert issubclass(Label, VolumeName)
    assert VolumeName("a" * 36) == Label("a" * 36)
