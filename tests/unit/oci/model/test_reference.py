"""Names of images and registries."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.core.digest import Digest
from machineos.errors import DocumentError
from machineos.oci.model.reference import (
    ImageSource,
    Reference,
    RegistryLocation,
    Way,
    check_name,
    is_loopback,
)

DIGEST = Digest.of(b"x")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("machine/install:1.0.0", Reference("machine/install", tag="1.0.0")),
        ("install", Reference("install")),
        ("10.0.2.2:5000/a/b:1", Reference("a/b", host="10.0.2.2:5000", tag="1")),
        ("localhost/a", Reference("a", host="localhost")),
        ("[::1]:5000/a:t", Reference("a", host="[::1]:5000", tag="t")),
        (f"r.example.com/a@{DIGEST}", Reference("a", host="r.example.com", digest=DIGEST)),
        (f"h:1/a:t@{DIGEST}", Reference("a", host="h:1", tag="t", digest=DIGEST)),
        ("a__b/c-d.e", Reference("a__b/c-d.e")),
    ],
)
def test_references(text: str, expected: Reference) -> None:
    assert Reference.parse(text) == expected
    assert str(expected) == text


def test_what_is_asked_for() -> None:
    assert Reference("a").selector == "latest"
    assert Reference("a", tag="t").selector == "t"
    assert Reference("a", tag="t", digest=DIGEST).selector == str(DIGEST)


@pytest.mark.parametrize(
    ("text", "way", "file", "selector"),
    [
        ("oci-archive:a.tar", "oci-archive", "a.tar", ""),
        ("oci-archive:/a/b.tar:1.0", "oci-archive", "/a/b.tar", "1.0"),
        ("oci-archive:a.tar:@2", "oci-archive", "a.tar", "@2"),
        ("docker-archive:a.tar", "docker-archive", "a.tar", ""),
        ("docker-archive:a.tar:h.x:1/a/b:t", "docker-archive", "a.tar", "h.x:1/a/b:t"),
        ("docker-archive:a.tar:@0", "docker-archive", "a.tar", "@0"),
        ("docker-daemon:alpine:3", "docker-daemon", None, "alpine:3"),
        (f"docker-daemon:{DIGEST}", "docker-daemon", None, str(DIGEST)),
        ("containers-storage:localhost/a:t", "containers-storage", None, "localhost/a:t"),
        (f"containers-storage:@{DIGEST.hex}", "containers-storage", None, f"@{DIGEST.hex}"),
    ],
)
def test_images_of_archives_and_engines(
    text: str, way: Way, file: str | None, selector: str
) -> None:
    source = ImageSource.parse(text)
    assert source == ImageSource(selector, way=way, file=Path(file) if file else None)
    assert str(source) == text


HOSTILE = [
    "",
    " ",
    "../..",
    "a/../b",
    "A",
    "r.example.com/A:1",
    "a:",
    "a:.x",
    "a@",
    "a@sha256:" + "A" * 64,
    "a@sha256:../../x",
    "a@md5:" + "0" * 32,
    "a\0b",
    "a\nb",
    "a" * 4096,
    "r.example.com:0/a",
    "r.example.com:99999/a",
    "[::zz]/a",
    "https://r.example.com/a",
    "r.example.com/",
    "/a",
    "a:t:t",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_references_are_refused(text: str) -> None:
    for parse in (
        Reference.parse,
        lambda text: ImageSource.parse(f"docker://r.example.com/{text}"),
    ):
        if text.startswith("r.example.com") and parse is not Reference.parse:
            continue
        with pytest.raises(DocumentError) as caught:
            parse(text)
        assert len(str(caught.value)) < 500
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("text", "folder", "selector"),
    [
        ("oci:/a/b:1.0", Path("/a/b"), "1.0"),
        ("oci:dir:squashfs", Path("dir"), "squashfs"),
        ("oci:dir:r.example.com/library/x:1", Path("dir"), "r.example.com/library/x:1"),
        ("oci:dir:a--b+c@d", Path("dir"), "a--b+c@d"),
        ("oci:job@2:1", Path("job@2"), "1"),
        (f"oci:job@2@{DIGEST}", Path("job@2"), str(DIGEST)),
        (f"oci:/a@{DIGEST}", Path("/a"), str(DIGEST)),
    ],
)
def test_layout_sources(text: str, folder: Path, selector: str) -> None:
    source = ImageSource.parse(text)
    assert (source.folder, source.selector, source.reference) == (folder, selector, None)
    assert str(source) == text


def test_registry_sources() -> None:
    text = "docker://127.0.0.1:5000/machine/demo:1.0-squashfs"
    source = ImageSource.parse(text)
    assert source.folder is None
    assert source.reference == Reference("machine/demo", "127.0.0.1:5000", "1.0-squashfs")
    assert (source.selector, str(source)) == ("1.0-squashfs", text)
    # the layout store of the appliance names images by their digest
    assert ImageSource.parse(f"oci:/store:{DIGEST}").selector == str(DIGEST)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "oci:",
        "oci:/a",
        "oci::t",
        "oci:/a:",
        "oci:/a:b c",
        "oci:/a:b//c",
        "oci:/a:/c",
        "oci:/a:" + "b" * 256,
        "oci:/a:sha256:x",
        "oci:/a\0:t",
        "docker://",
        "docker://a:t",
        "docker:/a/b",
        "dir:/a",
        "/etc/passwd",
        "oci:/" + "a" * 4096 + ":t",
    ],
)
def test_hostile_sources_are_refused(text: str) -> None:
    with pytest.raises(DocumentError):
        ImageSource.parse(text)


def test_registry_locations() -> None:
    assert RegistryLocation.parse("127.0.0.1:5000").host == "127.0.0.1:5000"
    assert RegistryLocation.parse("oci:/a/b").folder == Path("/a/b")
    owned = RegistryLocation.parse("ghcr.example/acme/line-1")
    assert (owned.host, owned.prefix) == ("ghcr.example", "acme/line-1")
    assert str(owned) == "ghcr.example/acme/line-1"
    for text in ("h.example/", "h.example/A", "h.example/a:1", "h.example/../a", "h:1/a//b"):
        with pytest.raises(DocumentError):
            RegistryLocation.parse(text)
    for text in ("", "oci:", "http://x", "a/b", "x:y", "a b", "\0", "a" * 300):
        with pytest.raises(DocumentError):
            RegistryLocation.parse(text)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("localhost:1", True),
        ("127.8.9.10:5000", True),
        ("[::1]", True),
        ("[::1]:80", True),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
        ("10.0.2.2:5000", False),
        ("[fe80::1]:80", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@given(st.text(max_size=60))
def test_any_text_is_read_back_or_refused(text: str) -> None:
    try:
        reference = Reference.parse(text)
    except DocumentError:
        return
    assert str(reference) == text
    assert ".." not in reference.name.split("/")


@given(st.lists(st.text("ab0._-", min_size=1, max_size=8), min_size=1, max_size=4))
def test_names_follow_the_grammar(parts: list[str]) -> None:
    """The same grammar, written another way."""
    good = all(
        part[0].isalnum()
        and part[-1].isalnum()
        and all(run in {".", "_", "__"} or set(run) == {"-"} for run in re.findall(r"[._-]+", part))
        for part in parts
    )
    if good:
        assert check_name("/".join(parts)) == "/".join(parts)
    else:
        with pytest.raises(DocumentError):
            check_name("/".join(parts))
