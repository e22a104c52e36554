from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.document.between.medium import VERSION, MediumIndex, parse_index
from machineos.errors import DocumentError


@given(st.text(max_size=40), st.text(max_size=40))
def test_what_is_written_is_read(live: str, install: str) -> None:
    index = MediumIndex(version=VERSION, live=live, install=install)
    assert parse_index(index.to_bytes()) == index


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (b"", ""), (b"[]", ""), (b"{}", ""), (b'{"version":1}', ""),
        (b'{"version":2,"live":"a:1"}', "version"), (b'{"version":"1","live":"a:1"}', "version"),
        (b'{"version":1,"live":null}', "live"), (b'{"version":1,"live":"a","more":1}', ""),
        (b'{"version":1,"live":"a","live":"b"}', ""),
    ],
)  # fmt: skip
def test_faults(data: bytes, path: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_index(data)
    assert [fault.path for fault in caught.value.faults] == [path]


@given(st.binary(max_size=100))
def test_any_bytes(data: bytes) -> None:
    with pytest.raises(DocumentError):
        parse_index(data)
