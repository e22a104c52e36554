"""Requests of the running system: whatever they are made of, they name and nothing more."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.core.digest import Digest
from machineos.document.state.requests import (
    MAX_REQUEST,
    MAX_REQUESTS,
    Named,
    Request,
    chosen,
    parse_request,
    plan,
    refusal,
    shown,
)
from machineos.errors import DocumentError

OURS, OTHER = (Digest.of(text) for text in (b"bootkit", b"another"))
GOOD = {"version": 1, "kind": "raise-floor", "object": str(OURS)}
versions = st.from_regex(r"[0-9]{4}", fullmatch=True)


def asked(digest: Digest = OURS, name: str = "a.json") -> Request:
    return Request(name, "raise-floor", digest)


def test_a_request() -> None:
    assert parse_request("a.json", json.dumps(GOOD).encode()) == asked()
    assert parse_request("a.json", json.dumps(GOOD).encode().ljust(MAX_REQUEST)) == asked()


@pytest.mark.parametrize("missing", sorted(GOOD))
def test_nothing_may_be_missing(missing: str) -> None:
    data = json.dumps({key: value for key, value in GOOD.items() if key != missing}).encode()
    with pytest.raises(DocumentError, match=missing):
        parse_request("a.json", data)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"version": 0}, "version"),
        ({"kind": "seal-anew"}, "kind"),
        ({"object": "sha256:" + "AB" * 32}, "object"),
        ({"object": "md5:" + "ab" * 16}, "object"),
    ],
)
def test_faults_name_their_place(change: dict[str, object], path: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_request("a.json", json.dumps(GOOD | change).encode())
    assert [fault.path for fault in caught.value.faults] == [path]


@given(st.binary(max_size=300) | st.text(max_size=100).map(lambda text: json.dumps(text).encode()))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(DocumentError):
        parse_request("a.json", data)


@given(st.text(max_size=300))
def test_what_is_shown_is_one_short_line(text: str) -> None:
    for line in (shown(text), refusal(text, text)):
        assert line.isascii()
        assert line.isprintable() or line == ""
        assert len(line) < 320


@given(st.lists(st.text(min_size=1, max_size=12), unique=True, max_size=MAX_REQUESTS + 1))
def test_any_names(names: list[str]) -> None:
    good, lines = chosen(names)
    if len(names) > MAX_REQUESTS:
        assert (good, len(lines)) == ((), 1)
        return
    assert len(good) + len(lines) == len(names)
    assert list(good) == sorted(good)
    assert all(name.endswith(".json") and "/" not in name for name in good)


# -- the plan


@given(versions, versions, versions)
def test_a_floor_rises_to_what_is_installed_and_never_above_what_runs(
    bootkit: str, running: str, floor: str
) -> None:
    decided = plan([asked()], Named({OURS: bootkit}), running=running, floor=floor)
    assert decided.refused == ()
    lowest = min(bootkit, running)
    assert decided.floor == (lowest if lowest > floor else "")


@given(versions, versions)
def test_of_several_generations_the_lowest_counts_whichever_is_named(one: str, two: str) -> None:
    named = Named({OURS: one, OTHER: two})
    for digest in (OURS, OTHER):
        decided = plan([asked(digest)], named, running="9999", floor="0000")
        assert decided.floor == (min(one, two) if min(one, two) > "0000" else "")


def test_an_object_that_nobody_verified() -> None:
    named = Named({OURS: "0003"})
    decided = plan([asked(OTHER, "b.json")], named, running="0003", floor="0001")
    assert decided.floor == ""
    assert decided.refused == (
        f"request b.json is not carried out: no verified generation has the bootkit {OTHER}",
    )
    both = plan([asked(), asked(OTHER)], named, running="0003", floor="0001")
    assert (both.floor, len(both.refused)) == ("0003", 1)
    assert plan([], named, running="0003", floor="0001").floor == ""
