from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.errors import DocumentError
from machineos.install.source import Request, open_registry, parse_request_file, parse_source
from machineos.oci.layout.folder import LayoutRegistry
from vectors.clock import FixedClock


@pytest.mark.parametrize(
    ("text", "host", "name", "tag"),
    [
        ("registry.example/machine/install:1.0.0", "registry.example", "machine/install", "1.0.0"),
        ("docker://registry.example:5000/a:b", "registry.example:5000", "a", "b"),
        ("docker://127.0.0.1:5000/machine/install:1", "127.0.0.1:5000", "machine/install", "1"),
        ("docker://[::1]:5000/a:b", "[::1]:5000", "a", "b"),
        ("localhost/a:b", "localhost", "a", "b"),
    ],
)
def test_source(text: str, host: str, name: str, tag: str) -> None:
    request = parse_source(text, plain_http=True, disk="vda")
    assert request == Request(name, tag, host, None, plain_http=True, disk="vda")
    assert request.shown == f"{host}/{name}:{tag}"


@pytest.mark.parametrize(
    "text",
    [
        "", "docker://", "machine/install:1.0.0", "registry.example/a", "docker://registry.example/a",
        "http://registry.example/a:b", "registry.example/A:b", "registry.example/../a:b",
        "registry.example/a:b c", "registry.example:99999/a:b", "registry.example/a:b\n",
        "registry.example/a:" + "t" * 129, "user@registry.example/a:b", "registry.example/a:-b",
    ],
)  # fmt: skip
def test_what_is_no_source(text: str) -> None:
    with pytest.raises(DocumentError):
        parse_source(text, plain_http=False)


@given(st.text(max_size=80))
def test_any_text(text: str) -> None:
    try:
        request = parse_source(text, plain_http=False)
    except DocumentError:
        return
    assert request.host
    assert request.tag


def test_url_txt() -> None:
    assert not parse_request_file("registry.example/a:b\n", disk="").plain_http
    request = parse_request_file("docker://registry.example/a:b plain-http\n", disk="vdb")
    assert (request.plain_http, request.disk, request.host) == (True, "vdb", "registry.example")


@pytest.mark.parametrize(
    "text",
    ["", "\n", "r.example/a:b insecure", "r.example/a:b plain-http x", "plain-http", "a b c"],
)
def test_what_is_no_url_txt(text: str) -> None:
    with pytest.raises(DocumentError):
        parse_request_file(text, disk="")


@given(st.text(max_size=80))
def test_any_url_txt(text: str) -> None:
    try:
        parse_request_file(text, disk="")
    except DocumentError as error:
        assert error.faults


def test_layouts_need_no_network(tmp_path: Path) -> None:
    request = Request("machine/install", "1", layouts=tmp_path)
    assert isinstance(open_registry(request, FixedClock()), LayoutRegistry)
    assert request.shown == "the medium/machine/install:1"
