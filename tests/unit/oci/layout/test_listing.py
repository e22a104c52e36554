"""The entries of index.json: who has the tag, who goes, what stays as it is."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from machineos.core.digest import Digest
from machineos.oci.layout.listing import list_manifest, tag_of
from machineos.oci.model.documents import INDEX, MANIFEST, REF_NAME, Descriptor

NEW = Descriptor(media_type=MANIFEST, digest=Digest.of(b"new"), size=3)
PLAIN = {"mediaType": MANIFEST, "digest": str(NEW.digest), "size": 3}


def entry(name: str, tag: str | None = None, **more: object) -> dict[str, Any]:
    """An entry for another manifest."""
    notes = {"k": "v"} | ({} if tag is None else {REF_NAME: tag})
    digest = str(Digest.of(name.encode()))
    return {"mediaType": INDEX, "digest": digest, "size": 1, "annotations": notes, **more}


def tagged(tag: str) -> dict[str, Any]:
    return {**PLAIN, "annotations": {REF_NAME: tag}}


def test_the_first_entry() -> None:
    assert list_manifest([], NEW, None) == [PLAIN]
    assert list_manifest([], NEW, "1.0") == [tagged("1.0")]


def test_what_is_listed_stays_as_it_is() -> None:
    for tag in (None, "1.0"):
        once = list_manifest([entry("other", "2.0")], NEW, tag)
        assert list_manifest(once, NEW, tag) == once
    both = [entry("other"), tagged("1.0")]
    assert list_manifest(both, NEW, None) == both


def test_an_entry_without_a_tag_gets_it_and_keeps_its_place_and_keys() -> None:
    before = [entry("a"), {**PLAIN, "urls": ["x"], "annotations": {"k": "v"}}, entry("b")]
    assert list_manifest(before, NEW, "1.0") == [
        entry("a"),
        {**PLAIN, "urls": ["x"], "annotations": {"k": "v", REF_NAME: "1.0"}},
        entry("b"),
    ]
    assert list_manifest([PLAIN], NEW, "1.0") == [tagged("1.0")]
    assert list_manifest([{**PLAIN, "annotations": None}], NEW, "1.0") == [tagged("1.0")]


def test_a_second_tag_is_a_second_entry() -> None:
    assert list_manifest([tagged("1.0")], NEW, "2.0") == [tagged("1.0"), tagged("2.0")]
    assert list_manifest([tagged("1.0"), PLAIN], NEW, "1.0") == [tagged("1.0"), PLAIN]


def test_a_tag_is_taken_from_who_had_it() -> None:
    theirs = entry("other", "1.0", urls=["x"])
    before = [theirs, entry("more", "2.0")]
    assert list_manifest(before, NEW, "1.0") == [
        entry("other", urls=["x"]),
        entry("more", "2.0"),
        tagged("1.0"),
    ]
    bare = {**entry("other"), "annotations": {REF_NAME: "1.0"}}
    without = {key: value for key, value in bare.items() if key != "annotations"}
    assert list_manifest([bare], NEW, "1.0") == [without, tagged("1.0")]


def test_who_has_another_tag_needs_no_entry_without_one() -> None:
    before = [entry("other", "1.0"), entry("other", "2.0")]
    assert list_manifest(before, NEW, "1.0") == [entry("other", "2.0"), tagged("1.0")]
    # An entry without a tag, or of another manifest, is none that keeps it.
    for keeper in (entry("other"), entry("more", "2.0"), entry("other", "")):
        assert list_manifest([entry("other", "1.0"), keeper], NEW, "1.0") == [
            entry("other"),
            keeper,
            tagged("1.0"),
        ]


def test_a_tag_is_a_string() -> None:
    assert tag_of(entry("a", "1.0")) == "1.0"
    assert tag_of(entry("a")) is None
    assert tag_of({"annotations": None}) is None
    assert tag_of({"annotations": {REF_NAME: 7}}) is None
    assert tag_of({}) is None


TAGS = st.sampled_from(["1", "2", "3", None])
ENTRIES = st.lists(st.builds(entry, st.sampled_from(["new", "a", "b"]), TAGS), max_size=6)


@given(ENTRIES, TAGS)
def test_a_tag_stands_at_one_entry_and_nobody_is_lost(
    entries: list[dict[str, Any]], tag: str | None
) -> None:
    before = copy.deepcopy(entries)
    found = list_manifest(entries, NEW, tag)
    assert entries == before
    holders = [one["digest"] for one in found if tag is not None and tag_of(one) == tag]
    assert set(holders) == ({str(NEW.digest)} if tag is not None else set())
    assert {one["digest"] for one in before} | {str(NEW.digest)} == {one["digest"] for one in found}
    others = [one for one in before if tag_of(one) not in {None, tag}]
    assert [one for one in found if one in others] == others
    assert list_manifest(found, NEW, tag) == found
