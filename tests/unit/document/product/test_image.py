"""The configuration of an image, read for a container or only looked at."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.document.model.image import ImageConfig, Sight, User
from machineos.document.product.image import check_image_config, parse_image_config, resolve_user
from machineos.errors import ArchiveError, DocumentError


def config(**run: object) -> bytes:
    return json.dumps({"config": run, "architecture": "amd64", "history": []}).encode()


def test_what_a_container_is_made_of() -> None:
    data = config(
        Entrypoint=["/a", ""], Cmd=["b c"], Env=["X=1=2", "E="], User="7:8", WorkingDir="/w/",
        StopSignal="SIGINT", Labels={"more": "is left alone"},
    )  # fmt: skip
    assert parse_image_config(data, name="i") == ImageConfig(
        argv=("/a", "", "b c"),
        env=(("X", "1=2"), ("E", "")),
        user="7:8",
        folder="/w",
        stop_signal="SIGINT",
    )


def test_what_is_not_said_has_a_default() -> None:
    assert parse_image_config(config(Cmd=["x"]), name="i") == ImageConfig(
        argv=("x",), env=(), user="", folder="/", stop_signal="SIGTERM"
    )
    nulls = config(Cmd=["x"], Entrypoint=None, Env=None)
    assert parse_image_config(nulls, name="i").argv == ("x",)


def test_all_faults_are_told() -> None:
    data = config(Cmd=[""], Env=["x"], User="a:b:c", WorkingDir="w", StopSignal="x")
    with pytest.raises(DocumentError) as caught:
        parse_image_config(data, name="i")
    assert caught.value.name == "i"
    assert [(fault.path, fault.rule) for fault in caught.value.faults] == [
        ("config.Entrypoint", "config-command"),
        ("config.Env[0]", "config-env"),
        ("config.User", "config-user"),
        ("config.WorkingDir", "config-folder"),
        ("config.StopSignal", "config-signal"),
    ]


def test_an_image_that_is_only_mounted_needs_no_command() -> None:
    for data in (b"{}", b'{"config":null}', config(), config(Cmd=["x"])):
        check_image_config(data, name="i")
    with pytest.raises(DocumentError) as caught:
        check_image_config(config(Env=["x"], StopSignal="x"), name="i")
    assert [fault.rule for fault in caught.value.faults] == ["config-env", "config-signal"]
    for data in (b"{}", b'{"config":null}', config()):
        with pytest.raises(DocumentError, match="nothing to run"):
            parse_image_config(data, name="i")


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (b"[]", ""),
        (b"", ""),
        (b'{"config":[]}', "config"),
        (config(Entrypoint="sh"), "config.Entrypoint"),
        (config(Cmd=[1]), "config.Cmd[0]"),
        (config(Env={"a": "b"}), "config.Env"),
        (config(User=7), "config.User"),
        (b'{"config":{"Cmd":["a"],"Cmd":["b"]}}', ""),
        (b'{"config":{"Cmd":["\\ud800"]}}', ""),
        (b'{"config":{"Cmd":["x"]}}' + b" " * (1 << 20), ""),
    ],
)
def test_what_is_no_configuration(data: bytes, path: str) -> None:
    for read in (parse_image_config, check_image_config):
        with pytest.raises(DocumentError) as caught:
            read(data, name="i")
        assert [fault.path for fault in caught.value.faults] == [path]


def seen(**other: Sight) -> Callable[[str], Sight]:
    """Look into an image with these instead of its files of users."""
    files = {
        "passwd": Sight(data=b"app:x:1000:1001:a:/srv:/bin/sh\n"),
        "group": Sight(data=b"web:x:33:\n"),
        **other,
    }
    found = {f"/etc/{name}": sight for name, sight in files.items()}
    return lambda path: found[path]


@pytest.mark.parametrize("name", ["passwd", "group"])
def test_a_file_of_users_is_plain_or_not_there(name: str) -> None:
    """Also when nobody has to be looked up in it."""
    with pytest.raises(ArchiveError) as caught:
        resolve_user("5:6", seen(**{name: Sight("it is a link")}), image="i")
    assert (str(caught.value), caught.value.rule) == ("image i: it is a link", "config-user-files")
    # What is absent holds nothing, whatever else was said of it.
    absent = seen(**{name: Sight("it does not exist", absent=True, data=b"app:x:7:33:::")})
    assert resolve_user("5:6", absent, image="i") == User(5, 6, "/")
    with pytest.raises(DocumentError, match="'app:web' is not a user and group of the image"):
        resolve_user("app:web", absent, image="i")


def test_a_user_is_looked_up_in_the_image() -> None:
    assert resolve_user("app", seen(), image="i") == User(1000, 1001, "/srv")
    assert resolve_user("app:web", seen(), image="i") == User(1000, 33, "/srv")
    with pytest.raises(DocumentError) as caught:
        resolve_user("web", seen(), image="i")
    assert caught.value.name == "image i"
    assert [fault.rule for fault in caught.value.faults] == ["config-user-known"]
    assert caught.value.hint == (
        "use numbers, or add them to the image's /etc/passwd and /etc/group"
    )


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    try:
        found = parse_image_config(data, name="i")
    except DocumentError:
        return
    assert found.argv
