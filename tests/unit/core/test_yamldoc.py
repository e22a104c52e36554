"""Strict YAML: what it refuses, with path and line, and that no bytes make it crash."""

from __future__ import annotations

from typing import Literal, TypeVar

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from machineos.core.digest import Digest
from machineos.core.yamldoc import (
    MAX_DEPTH,
    Mapping,
    Scalar,
    Sequence,
    _fault_of,
    decode,
    line_of,
    parse_yaml,
)
from machineos.errors import DocumentError, Fault

T = TypeVar("T", bound=msgspec.Struct)


class Port(msgspec.Struct, frozen=True):
    host: int
    container: int
    proto: Literal["tcp", "udp"] = "tcp"


class Target(msgspec.Struct, frozen=True):
    name: str
    version: str
    enabled: bool = True
    digest: Digest | None = None
    ports: list[Port] = []
    tags: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    source: str | list[str] | Port = ""


def decoded(text: str, model: type[T]) -> T:
    """Return ``text`` as ``model``. Raises: DocumentError."""
    found: list[Fault] = []
    value = decode(parse_yaml(text.encode(), name="doc"), model, found)
    if found:
        raise DocumentError("doc", found)
    assert isinstance(value, model)
    return value


def faults(text: str, model: type[msgspec.Struct] = Target) -> list[tuple[str, int, str]]:
    with pytest.raises(DocumentError) as caught:
        decoded(text, model)
    return [(fault.path, fault.line, fault.message) for fault in caught.value.faults]


def fault(text: str, model: type[msgspec.Struct] = Target) -> tuple[str, int, str]:
    (only,) = faults(text, model)
    return only


def test_scalars_stay_what_was_written() -> None:
    target = decoded("name: NO\nversion: 1.10\ntags: [0x1f, 1e3, 2026-01-01, '']\n", Target)
    assert target == Target(name="NO", version="1.10", tags=("0x1f", "1e3", "2026-01-01", ""))


def test_every_type_of_a_model() -> None:
    digest = Digest.of(b"x")
    text = f"""
name: a
version: "1"
enabled: false
digest: {digest}
ports:
  - host: 80
    container: 5000
    proto: udp
labels: {{a: b}}
source: [x, y]
"""
    assert decoded(text, Target) == Target(
        name="a",
        version="1",
        enabled=False,
        digest=digest,
        ports=[Port(80, 5000, "udp")],
        labels={"a": "b"},
        source=["x", "y"],
    )
    with_port = decoded("name: a\nversion: b\ndigest: ~\nsource: {host: 1, container: 2}", Target)
    assert (with_port.digest, with_port.source) == (None, Port(1, 2))
    assert decoded("name: a\nversion: b\nsource: c\n", Target).source == "c"


@pytest.mark.parametrize(
    ("text", "path", "line", "part"),
    [
        ("name: a\nversion: b\nversion: c\n", "version", 3, "twice"),
        ("name: a\nversion: &x b\n", "", 2, "anchors"),
        ("name: &x a\nversion: b\ntags: [*x]\n", "", 1, "anchors"),
        ("name: !!str a\nversion: b\n", "", 1, "tag"),
        ("name: a\nversion: b\nlabels:\n  <<: {a: b}\n", "labels", 4, "merge"),
        ("name: a\nversion: b\n? [x]\n: y\n", "", 3, "not a string"),
        ("name: a\nversion: b\nports:\n  - host: 80\n", "ports[0].container", 4, "missing"),
        ("name: a\nversion: b\nport: 80\n", "port", 3, "not a known key"),
        ("name: a\nversion: b\nlabels:\n  a:\n    b: c\n", "labels.a", 5, "single value"),
        ("name: a\nversion: b\nports: {}\n", "ports", 3, "list"),
        ("name: a\nversion: b\nlabels: []\n", "labels", 3, "mapping"),
        ("name: a\nversion: b\nenabled: yes\n", "enabled", 3, "neither true nor false"),
        ("name: a\nversion: b\nenabled: 'true'\n", "enabled", 3, "'true' in quotes is a text, and"),
        ("name: a\nversion: b\nenabled: 'on'\n", "enabled", 3, "'on' is neither true nor false"),
        ("name: a\nversion: b\ndigest: sha256:AB\n", "digest", 3, "lower-case hex"),
        ("name: a\nversion: [b]\n", "version", 2, "single value"),
        ("name: [a\n", "", 2, "not YAML"),
        ("- a\n", "", 1, "must be a mapping"),
        ("a\n", "", 1, "must be a mapping"),
        ("", "", 1, "empty"),
        ("# only a comment\n", "", 1, "empty"),
        ("name: a\nversion: b\n---\nname: c\n", "", 3, "not YAML"),
    ],
)
def test_a_fault_names_path_and_line(text: str, path: str, line: int, part: str) -> None:
    found = faults(text)
    assert (found[0][0], found[0][1]) == (path, line)
    assert part in found[0][2]


@pytest.mark.parametrize(
    "value", ["80x", "8 0", "0x50", "1_000", "٣", "-", "--1", "1.0", "", "9" * 20]
)
def test_what_is_no_whole_number(value: str) -> None:
    where = fault(f"host: '{value}'\ncontainer: 1\n", Port)
    assert where[:2] == ("host", 1)
    assert "whole number" in where[2]


def test_all_faults_at_once() -> None:
    text = "version: [1]\nports:\n- host: x\n  container: 1\n- host: 1\n  proto: sctp\nfoo: 1\n"
    found = {(path, line) for path, line, _ in faults(text)}
    assert found == {
        ("foo", 7), ("name", 1), ("version", 1), ("ports[0].host", 3), ("ports[1].container", 5),
        ("ports[1].proto", 6),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"\xff\xfe", "UTF-8"),
        (b"a: \xed\xa0\x80", "UTF-8"),
        (b"a: \x00", "not YAML"),
        (b"a: \x1b[0m", "not YAML"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "too deeply"),
        (b"[" * 100_000, "too deeply"),
        (b"- " * 100_000, "too deeply"),
        (b"{a: " * 5000, "too deeply"),
        (b"- a\n" * 250_000, "too large"),
        (b"x" * ((1 << 20) + 1), "larger than"),
        (b"? " * 50_000, "too deeply"),
    ],
    ids=range(11),
)
def test_hostile_documents(data: bytes, part: str) -> None:
    with pytest.raises(DocumentError, match=part):
        parse_yaml(data, name="doc")


def test_the_limit_of_the_parser_is_said_like_ours() -> None:
    """PyYAML 6.0.4 has one, and meets it first, because it looks ahead."""
    mark = yaml.Mark("", 0, 2, 5, "", 0)

    def said(error: yaml.YAMLError) -> tuple[str, int, str]:
        fault = _fault_of(error, "")
        return fault.path, fault.line, fault.message

    deep = yaml.MarkedYAMLError(problem="exceeded maximum nesting depth", problem_mark=mark)
    assert said(deep) == ("", 3, "is too large or nested too deeply")
    other = yaml.MarkedYAMLError(context="while parsing", problem="no", problem_mark=mark)
    assert said(other) == ("", 3, "is not YAML: no")
    assert said(yaml.MarkedYAMLError(context="there")) == ("", 0, "is not YAML: there")
    assert said(yaml.MarkedYAMLError()) == ("", 0, "is not YAML: ")
    assert said(yaml.YAMLError("x")) == ("", 0, "is not YAML: x")


@pytest.mark.parametrize(
    "data",
    [
        b"a:\n\tb: c\n",
        b"a:\n  b: c\n\tc: d\n",
        b"a:\n  - b\n\t- c\n",
        b"a:\n  c: |\n\tfoo\n",
    ],
)
def test_a_tab_before_the_text_is_called_by_its_name(data: bytes) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_yaml(data, name="doc")
    (fault,) = caught.value.faults
    assert fault.line == data.count(b"\n", 0, data.index(b"\t")) + 1
    assert fault.message == "is not YAML: a tab stands before the text: indent with spaces"


def test_a_sign_that_yaml_keeps_for_itself_wants_quotes() -> None:
    with pytest.raises(DocumentError, match="'@' begins no value: put the value in quotes"):
        parse_yaml(b"a: @x\n", name="doc")


def test_the_billion_laughs_are_refused_at_the_first_anchor() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)]
    with pytest.raises(DocumentError, match="anchors"):
        parse_yaml("\n".join(lines).encode(), name="doc")


def test_line_of() -> None:
    node = parse_yaml(b"a: 1\nb:\n  - x\n  -\n    c: 2\n", name="d")
    assert [line_of(node, path) for path in ("a", "b", "b[0]", "b[1].c", "b[7]", "none", "")] == [
        1, 2, 3, 5, 2, 1, 1,
    ]  # fmt: skip


@given(st.binary(max_size=200))
def test_any_bytes_parse_or_are_faults(data: bytes) -> None:
    try:
        node = parse_yaml(data, name="doc")
    except DocumentError as error:
        assert error.faults
    else:
        assert isinstance(node, Scalar | Sequence | Mapping)


@given(st.text(alphabet="ab:-[]{}#&*!|>'\"%@`,? \n\t~01.<", max_size=60))
def test_any_yaml_like_text_decodes_or_has_faults(text: str) -> None:
    try:
        decoded(text, Target)
    except DocumentError as error:
        assert error.faults
        assert all(fault.line >= 0 and fault.message for fault in error.faults)


plain = st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=12)
trees = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain, inner, max_size=3),
    max_leaves=10,
)


@given(trees)
def test_what_yaml_writes_comes_back(tree: object) -> None:
    """Quoted everywhere, so that no string can look like anything else."""

    def plainly(node: object) -> object:
        if isinstance(node, Scalar):
            return node.text
        if isinstance(node, Sequence):
            return [plainly(item) for item in node.items]
        assert isinstance(node, Mapping)
        return {key: plainly(item) for key, item in node.items.items()}

    text = yaml.safe_dump(tree, default_style='"', width=1 << 20)
    assert plainly(parse_yaml(text.replace("!!str ", "").encode(), name="d")) == tree
