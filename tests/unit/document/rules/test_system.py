"""What a machine may have stored of itself."""

from __future__ import annotations

import pytest

from machineos.document.model.names import GroupName
from machineos.document.rules.system import RULES, Given, Stored
from machineos.errors import ConflictError
from unit.document.rules.samples import rule

SHA = "a" * 64
LAST = (1 << 32) - 2


def said(
    *manifests: str, ranges: tuple[tuple[str, int], ...] = ()
) -> dict[str, list[tuple[str, str]]]:
    found = {one.name: list(one.breaches(Stored(manifests, ranges))) for one in RULES}
    return {name: messages for name, messages in found.items() if messages}


def test_what_may_be_stored() -> None:
    assert said(SHA) == {}
    assert said(SHA, "b" * 64, ranges=(("a", 65536), ("b", 131072), ("c", LAST - 65535))) == {}


def test_how_many_documents() -> None:
    names = [f"{number:064x}" for number in range(65)]
    message = [("manifests", "has not between 1 and 64 entries")]
    assert said(*names[:64]) == {}
    assert said(*names) == {"system-count": message}
    assert said() == {"system-count": message}


def test_documents_have_names_and_count_once() -> None:
    assert said(SHA, "../x") == {
        "system-document": [("manifests[1]", "'../x' is not a sha256 in hex")]
    }
    assert said(SHA, "b" * 64, SHA) == {
        "system-document-once": [("manifests[2]", "is there twice")]
    }


def test_a_range_belongs_to_a_group_that_needs_one() -> None:
    path = "uidmaps[1].idmap-name"
    for name, message in (
        ("none", "'none' means that there are no own ids"),
        ("", "is missing or empty"),
        ("../a", f"'../a' is not {GroupName.WHAT}"),
    ):
        found = said(SHA, ranges=(("a", 65536), (name, 131072)))
        assert found == {"system-group": [(path, message)]}
    assert said(SHA, ranges=(("a", 65536), ("a", 131072))) == {
        "system-group-once": [(path, "'a' is there twice")]
    }


@pytest.mark.parametrize("first", [0, -1, 65535, LAST - 65534, LAST])
def test_ranges_are_neither_the_hosts_nor_beyond_the_last_id(first: int) -> None:
    message = f"id range {first} is outside 65536 to {LAST}"
    assert said(SHA, ranges=(("a", 200000), ("b", first))) == {
        "id-range-inside": [("uidmaps[1].hostid", message)]
    }


def test_ranges_do_not_overlap() -> None:
    assert said(SHA, ranges=(("a", 165536), ("b", 100000))) == {}
    assert said(SHA, ranges=(("a", 165535), ("b", 100000))) == {
        "id-range-apart": [("uidmaps", "id ranges 100000 and 165535 overlap")]
    }
    assert said(SHA, ranges=(("a", 100000), ("b", 100000))) == {
        "id-range-apart": [("uidmaps", "id ranges 100000 and 100000 overlap")]
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("id-range-free", "no id range is free for group 'g'"),
        ("id-range-given", "group 'g' has no id range"),
    ],
)
def test_every_group_has_a_range(name: str, message: str) -> None:
    assert list(rule(name).breaches(Given("g", 0))) == []
    assert list(rule(name).breaches(Given("g", -1))) == [("uidmaps", message)]
    assert rule(name).error is ConflictError
