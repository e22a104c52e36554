"""Where a manifest is: one reader for ``trust launch``, ``mosctl install`` and ``url.txt``."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.errors import DocumentError
from machineos.oci.model.place import Place
from machineos.oci.model.reference import RegistryLocation


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
@pytest.mark.parametrize("plain_http", [False, True])
def test_on_a_registry(text: str, host: str, name: str, tag: str, plain_http: bool) -> None:
    place = Place.parse_remote(text, plain_http=plain_http)
    assert place == Place(RegistryLocation(host=host), name, tag, plain_http)
    assert place == Place.parse(text, plain_http=plain_http)
    assert (place.url, place.local) == (f"{host}/{name}:{tag}", "")


def test_in_a_folder() -> None:
    place = Place.parse("oci:some/dir:machine/install:1.0.0", plain_http=True)
    assert place == Place(RegistryLocation(folder=Path("some/dir")), "machine/install", "1.0.0")
    assert (place.url, place.local) == ("", "oci:some/dir:machine/install:1.0.0")


@pytest.mark.parametrize(
    "text",
    [
        "", "docker://", "machine/install:1.0.0", "registry.example/a", "docker://registry.example/a",
        "http://registry.example/a:b", "registry.example/A:b", "registry.example/../a:b",
        "registry.example/a:b c", "registry.example:99999/a:b", "registry.example/a:b\n",
        "registry.example/a:" + "t" * 129, "user@registry.example/a:b", "registry.example/a:-b",
        f"host:5000/name@sha256:{'0' * 64}", "host/../x:tag", "name:tag",
    ],
)  # fmt: skip
def test_what_is_no_place(text: str) -> None:
    for parse in (Place.parse_remote, Place.parse):
        with pytest.raises(DocumentError):
            parse(text, plain_http=False)


@pytest.mark.parametrize(
    "text",
    ["oci:", "oci:dir", "oci:dir:name", "oci::name:tag", "oci:dir:name:", "oci:dir::tag",
     "oci:dir:Name:tag", "oci:dir:../x:tag", "oci:dir:name:.tag"],
)  # fmt: skip
def test_what_is_no_place_in_a_folder(text: str) -> None:
    with pytest.raises(DocumentError):
        Place.parse(text, plain_http=False)


def test_what_is_said() -> None:
    for text, message in (
        ("registry.example/a", "'registry.example/a': is not host[:port]/path:tag"),
        ("oci:dir:name", "'oci:dir:name': is not oci:DIR:path:tag"),
        (
            f"r.example/a:b@sha256:{'0' * 64}",
            f"'r.example/a:b@sha256:{'0' * 64}': names a digest: "
            "a manifest is named by its tag, and verified",
        ),
    ):
        with pytest.raises(DocumentError) as caught:
            Place.parse(text, plain_http=False)
        assert caught.value.message == message


def test_what_is_said_of_a_long_text() -> None:
    text = "registry.example/" + "a/" * 200 + "a"
    for name in (text, text[:201]):
        with pytest.raises(DocumentError) as caught:
            Place.parse_remote(name.rstrip("/"), plain_http=False)
        assert len(caught.value.name) <= 202
    text = "oci:" + "a" * 300
    with pytest.raises(DocumentError) as caught:
        Place.parse(text, plain_http=False)
    assert caught.value.name == repr(text[:200])


def test_a_folder_is_no_registry() -> None:
    with pytest.raises(DocumentError):
        Place.parse_remote("oci:some/dir:machine/install:1.0.0", plain_http=False)


@given(st.text(max_size=80))
def test_any_text(text: str) -> None:
    for prefix in ("", "oci:", "docker://", "oci:dir:", "host:5000/"):
        try:
            place = Place.parse(prefix + text, plain_http=False)
        except DocumentError:
            continue
        assert place.name
        assert place.tag
        assert bool(place.url) != bool(place.local)
