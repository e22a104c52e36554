"""Strict JSON: one meaning or none."""

from __future__ import annotations

import json
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.core.jsondoc import MAX_DEPTH, decode_json, parse_json
from machineos.errors import DocumentError


class Inner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    n: int


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    a: str
    b: tuple[Inner, ...] = ()


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b'{"a":1,"a":1}', "twice"),
        (b'[{"x":{"a":1,"b":2,"a":3}}]', "twice"),
        (b'{"a":1,"\\u0061":2}', "twice"),
        (b"NaN", "NaN"),
        (b"[Infinity]", "Infinity"),
        (b"-Infinity", "Infinity"),
        (b"1e999", "1e999"),
        (b"[-1e999]", "1e999"),
        (b'"\\ud800"', "surrogate"),
        (b'{"\\uDFFF":1}', "surrogate"),
        (b'"\xed\xa0\x80"', "UTF-8"),
        (b"\xff", "UTF-8"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b"", "not JSON"),
        (b"{} {}", "not JSON"),
        (b"{'a':1}", "not JSON"),
        (b"[1,]", "not JSON"),
        (b"// x\n1", "not JSON"),
        (b'"\n"', "not JSON"),
        (b"1" * 5000, "out of range"),
        (b"18446744073709551616", "out of range"),
        (b"[-9223372036854775809]", "out of range"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "nested deeper"),
        (b'{"a":' * 100_000, "nested deeper"),
        (b"[" * 1_000_000, "nested deeper"),
    ],
)
def test_refused(data: bytes, part: str) -> None:
    with pytest.raises(DocumentError, match=part):
        parse_json(data, name="doc")


def test_accepted() -> None:
    assert parse_json(b'{"a": [1, -2.5, "\\ud83d\\ude00", true, null]}', name="d") == {
        "a": [1, -2.5, "😀", True, None]
    }
    deep = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert json.dumps(parse_json(deep, name="d")).encode() == deep
    text = '"' + "[{" * 100 + '\\"' + '"'
    assert parse_json(text.encode(), name="d") == "[{" * 100 + '"'


def test_the_line_of_a_syntax_error() -> None:
    with pytest.raises(DocumentError) as caught:
        parse_json(b'{\n"a": 1,\n"b" 2\n}', name="doc")
    assert caught.value.faults[0].line == 3


def test_the_limit() -> None:
    assert parse_json(b"12345", name="d", limit=5) == 12345
    with pytest.raises(DocumentError, match="larger than 5 bytes"):
        parse_json(b"123456", name="d", limit=5)


@pytest.mark.parametrize("data", [b'"' + b'\\"' * 500_000, b'"' * 1_000_001, b"\\" * 1_000_000])
def test_hostile_strings_take_linear_time(data: bytes) -> None:
    start = time.perf_counter()
    with pytest.raises(DocumentError):
        parse_json(data, name="d")
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (b'{"a":1}', "a"),
        (b'{"a":"x","b":[{"n":1},{"n":"2"}]}', "b[1].n"),
        (b'{"a":"x","b":[{"n":1.5}]}', "b[0].n"),
        (b'{"a":"x","b":[{"n":1,"m":2}]}', "b[0]"),
        (b'{"a":"x","c":1}', ""),
        (b"{}", ""),
        (b"[]", ""),
    ],
)
def test_a_fault_names_its_path(data: bytes, path: str) -> None:
    with pytest.raises(DocumentError) as caught:
        decode_json(data, Model, name="doc")
    assert [fault.path for fault in caught.value.faults] == [path]
    assert caught.value.message.startswith("doc: ")


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(values)
def test_what_json_writes_comes_back(value: object) -> None:
    assert parse_json(json.dumps(value).encode(), name="d") == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode(), name="d") == value


@given(
    st.binary(max_size=300)
    | st.text(alphabet='{}[]",:\\u0dDeE19.-+ \n', max_size=60).map(str.encode)
)
def test_any_bytes(data: bytes) -> None:
    """Nothing but DocumentError comes out, and what is accepted can be written again as UTF-8."""
    try:
        value = parse_json(data, name="doc")
    except DocumentError as error:
        assert len(error.faults) == 1
    else:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


@given(values)
def test_any_value_decodes_or_has_a_fault(value: object) -> None:
    try:
        decode_json(json.dumps(value).encode(), Model, name="doc")
    except DocumentError as error:
        assert len(error.faults) == 1


@given(st.sampled_from(["a", "b", "x"]), st.integers(0, 3))
def test_equal_keys_are_seen_at_any_depth(key: str, depth: int) -> None:
    text = f'{{"{key}":1,"z":2,"{key}":1}}'
    for _ in range(depth):
        text = f'{{"o":[{text}]}}'
    with pytest.raises(DocumentError, match="twice"):
        parse_json(text.encode(), name="doc")
