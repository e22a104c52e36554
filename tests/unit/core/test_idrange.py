from __future__ import annotations

import pytest

from machineos.core.idrange import FIRST_GUEST, LAST_ID, RANGE, IdRange, needs_range
from machineos.errors import ToolError


def test_the_numbers() -> None:
    assert (RANGE, FIRST_GUEST, LAST_ID) == (65536, 65536, 4294967294)


@pytest.mark.parametrize(
    ("group", "expected"), [("", False), ("none", False), ("None", True), ("web", True)]
)
def test_who_has_ids_of_its_own(group: str, expected: bool) -> None:
    assert needs_range(group) is expected


@pytest.mark.parametrize(
    ("first", "count"), [(-1, 5), (0, 0), (5, -1), (LAST_ID, 2), (LAST_ID - RANGE + 2, RANGE)]
)
def test_impossible_ranges(first: int, count: int) -> None:
    with pytest.raises(ToolError) as caught:
        IdRange(first, count)
    assert str(caught.value) == f"id range {first}+{count} is not possible"


@pytest.mark.parametrize(("first", "count"), [(0, 1), (LAST_ID, 1), (LAST_ID - RANGE + 1, RANGE)])
def test_the_outermost_ranges(first: int, count: int) -> None:
    assert IdRange(first, count).host(count - 1) == first + count - 1


def test_ids_inside_and_on_the_host() -> None:
    ids = IdRange(100000, 65536)
    assert (ids.host(0), ids.host(65535)) == (100000, 165535)
    assert ids.line == b"0 100000 65536\n"
    for inside in (-1, 65536):
        with pytest.raises(ToolError) as caught:
            ids.host(inside)
        assert str(caught.value) == f"id {inside} is outside the 65536 ids of the namespace"
