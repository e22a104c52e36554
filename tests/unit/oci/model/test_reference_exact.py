"""Names of images and registries to the letter: every message, both sides of each bound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from machineos.core.digest import Digest
from machineos.errors import DocumentError
from machineos.oci.model.place import Place
from machineos.oci.model.reference import (
    ImageSource,
    Reference,
    RegistryLocation,
    check_host,
    check_name,
    check_tag,
    is_loopback,
)

DIGEST = Digest.of(b"x")
NAME = (
    "is not a repository name (lower-case letters and digits, joined by '.', '_', '-', in parts "
    "separated by '/')"
)
TAG = "is not a tag (up to 128 letters, digits, '_', '.', '-'; not '.' or '-' first)"
LOG_IN = "who has a password logs in: skopeo login HOST"
HOST = "is not a registry (host or host:port, without a scheme)"


def remote(text: str) -> Place:
    return Place.parse_remote(text, plain_http=False)


def said(function: Callable[[str], object], text: str) -> str:
    with pytest.raises(DocumentError) as caught:
        function(text)
    return caught.value.message


def test_names_and_tags_that_are_good_come_back() -> None:
    for name in ("a", "a" * 255, "a/b/c", "a.b", "a_b", "a__b", "a--b"):
        assert check_name(name) == name
    for tag in ("a", "_", "A" * 128, "1.0-x_y"):
        assert check_tag(tag) == tag


def test_what_is_said_of_names_and_tags() -> None:
    long = "a" * 256
    assert said(check_name, long) == (
        f"'{'a' * 77}...': repository name is longer than 255 characters"
    )
    for name in ("", "A", "a//b", "a___b", "a..b", "-a", "a-", "a\n"):
        assert said(check_name, name) == f"{name!r}: {NAME}"
    for tag in ("", ".a", "-a", "a/b", "a:b", "a\n"):
        assert said(check_tag, tag) == f"{tag!r}: {TAG}"
    assert said(check_tag, "a" * 129) == f"'{'a' * 77}...': {TAG}"


def test_how_much_of_a_text_is_shown() -> None:
    exactly = "." + "a" * 79
    assert said(check_tag, exactly) == f"{exactly!r}: {TAG}"
    assert said(check_tag, exactly + "a") == f"'{exactly[:77]}...': {TAG}"


@pytest.mark.parametrize(
    "host",
    ["a", "a:1", "a.b-c.d:65535", "127.0.0.1", "[::1]", "[::1]:80", "a" * 63, "A", "[2001:db8::1]"],
)
def test_hosts_that_are_good_come_back(host: str) -> None:
    assert check_host(host) == host


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("", HOST),
        ("http://a", HOST),
        ("a/b", HOST),
        ("a b", HOST),
        ("-a", HOST),
        ("a-", HOST),
        ("a..b", HOST),
        ("a:", HOST),
        ("a:x", HOST),
        ("a:123456", HOST),
        ("a" * 64, HOST),
        ("[::1", HOST),
        ("[::1]:", HOST),
        ("a:0", "has a port that is not between 1 and 65535"),
        ("a:65536", "has a port that is not between 1 and 65535"),
        ("[::1]:0", "has a port that is not between 1 and 65535"),
        ("[1::2::3]", "is not an IPv6 address"),
        ("[1.2.3.4]", "is not an IPv6 address"),
    ],
)
def test_hosts_that_are_not(host: str, message: str) -> None:
    assert said(check_host, host) == f"{host!r}: {message}"


def test_how_long_a_host_may_be() -> None:
    host = ".".join(["a" * 63] * 4)
    assert len(host) == 255
    assert check_host(host) == host
    assert said(check_host, f"{host}a").endswith(HOST)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("LOCALHOST", True),
        ("localhost:5000", True),
        ("127.0.0.1", True),
        ("126.255.255.255", False),
        ("::1", True),
        ("nonsense//", False),
        ("[::2]", False),
        ("0.0.0.0", False),
    ],
)
def test_which_hosts_are_this_machine(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a" * 1025, "is longer than 1024 characters"),
        ("a\nb", "holds characters that cannot be printed"),
        ("A", NAME),
        ("h:1/A", NAME),
        ("a:", TAG),
        ("h:0/a", "has a port that is not between 1 and 65535"),
        ("h.x:0/a", "has a port that is not between 1 and 65535"),
        ("a@sha256:x", "'x' is not a sha256 value in lower-case hex"),
        ("a@x", "'x' is not a digest (algorithm:hex)"),
    ],
)
def test_what_is_said_of_references(text: str, message: str) -> None:
    found = said(Reference.parse, text)
    assert message in found
    assert found.startswith(repr(text) if len(text) <= 80 else f"'{text[:77]}...'")


def test_how_long_a_text_may_be() -> None:
    # A name of that length is refused, but not for the length of the text.
    assert "longer than 255" in said(Reference.parse, "a" * 1024)


@pytest.mark.parametrize(
    ("text", "host", "name"),
    [
        ("localhost/a", "localhost", "a"),
        ("a.b/c", "a.b", "c"),
        ("a:1/c", "a:1", "c"),
        ("[::1]/c", "[::1]", "c"),
        ("a/c", "", "a/c"),
        ("a/b.c", "", "a/b.c"),
    ],
)
def test_what_in_front_of_a_slash_is_a_host(text: str, host: str, name: str) -> None:
    assert Reference.parse(text) == Reference(name, host=host)


def test_a_reference_is_checked_however_it_is_made() -> None:
    for name, host, tag in (("A", "", None), ("a", "x y", None), ("a", "", "-")):
        with pytest.raises(DocumentError):
            Reference(name, host, tag)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("x", "is none of docker://host/name:tag, oci:DIR:TAG, oci-archive:FILE[:NAME], docker-"),
        ("dir:/a:t", "is none of docker://host/name:tag, oci:DIR:TAG"),
        ("oci-archive", "is none of docker://"),
        ("oci-archive:", "names no file: oci-archive:FILE[:NAME]"),
        ("docker-archive::a:t", "names no file: docker-archive:FILE[:NAME]"),
        ("oci-archive:a.tar:", "is not a name that an image in a layout may have"),
        ("oci-archive:a.tar:@x", "is not a name that an image in a layout may have"),
        ("docker-archive:a.tar:A", NAME),
        ("docker-daemon:", "is empty"),
        ("docker-daemon:-o", NAME),
        ("docker-daemon:sha256:x", "'x' is not a sha256 value in lower-case hex"),
        ("containers-storage:[vfs@/a]b:1", "which is not supported: leave [...] out"),
        ("docker://a:t", "names no registry host: docker://host[:port]/name[:tag]"),
        ("docker://h.x/A", NAME),
        ("oci:/a", "names no tag: oci:DIR:TAG"),
        ("oci:", "names no tag: oci:DIR:TAG"),
        ("oci::t", "names no folder: oci:DIR:TAG"),
        (f"oci:@{DIGEST}", "names no folder: oci:DIR:TAG"),
        ("oci:/a:-", "is not a name that an image in a layout may have"),
        ("oci:/a@x", "names no tag: oci:DIR:TAG or oci:DIR@sha256:..."),
        ("oci:/a:sha256:x", "'x' is not a sha256 value in lower-case hex"),
        ("oci:/a:sha512:x", "'x' is not a sha512 value in lower-case hex"),
    ],
)
def test_what_is_said_of_sources(text: str, message: str) -> None:
    assert message in said(ImageSource.parse, text)


def test_sources_come_back_as_they_were_written() -> None:
    for text in (
        "docker://h.x/a:t",
        "docker://h.x/a",
        f"docker://h.x/a@{DIGEST}",
        "oci:dir:tag",
        f"oci:dir@{DIGEST}",
    ):
        assert str(ImageSource.parse(text)) == text
    by_digest = ImageSource.parse(f"oci:dir:{DIGEST}")
    assert (by_digest.folder, by_digest.selector) == (Path("dir"), str(DIGEST))
    assert str(by_digest) == f"oci:dir@{DIGEST}"
    assert ImageSource.parse("docker://h.x/a").selector == "latest"


def test_registries_and_folders() -> None:
    assert RegistryLocation.parse("h:1") == RegistryLocation(host="h:1")
    assert RegistryLocation.parse("oci:a/b") == RegistryLocation(folder=Path("a/b"))
    assert (RegistryLocation().host, RegistryLocation().folder) == ("", None)
    assert str(RegistryLocation.parse("h:1")) == "h:1"
    assert str(RegistryLocation.parse("oci:a/b")) == "oci:a/b"
    assert said(RegistryLocation.parse, "oci:") == "'oci:': names no folder: oci:DIR"
    assert said(RegistryLocation.parse, "") == "'': is empty"
    assert said(RegistryLocation.parse, "a/b") == f"'a/b': {HOST}"


@pytest.mark.parametrize(
    ("parse", "text", "shown"),
    [
        (ImageSource.parse, "docker://user:secret@h:5000/x:1", "'docker://...@h:5000/x:1'"),
        (
            ImageSource.parse,
            f"docker://user:{'secret' * 20}@h:5000/x:1",
            "'docker://...@h:5000/x:1'",
        ),
        (ImageSource.parse, "docker://user:sec@ret@h/x", "'docker://...@h/x'"),
        (ImageSource.parse, "docker://user:sec/ret@h/x", "'docker://...@h/x'"),
        (ImageSource.parse, "docker://secret@h/x", "'docker://...@h/x'"),
        (ImageSource.parse, "docker://u:secret@h/x@sha256:0", "'docker://...@h/x@sha256:0'"),
        (ImageSource.parse, "user:secret@h:5000/x:1", "'...@h:5000/x:1'"),
        (RegistryLocation.parse, "user:secret@h:5000", "'...@h:5000'"),
        (RegistryLocation.parse, "https://user:secret@h:5000", "'https://...@h:5000'"),
        (Reference.parse, "user:secret@h.x/a", "'...@h.x/a'"),
        (remote, "docker://user:secret@h.x/a:1", "'...@h.x/a:1'"),
        (remote, "user:secret@h.x/a:1", "'...@h.x/a:1'"),
    ],
)
def test_a_password_is_never_shown(parse: Callable[[str], object], text: str, shown: str) -> None:
    """What the right way is, is said: on the command line others could read it."""
    found = said(parse, text)
    assert found == f"{shown}: has an '@' that no digest follows; {LOG_IN}"


def test_a_name_in_a_layout_may_have_an_at() -> None:
    assert ImageSource.parse("oci:/a:b@c").selector == "b@c"
