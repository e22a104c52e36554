from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.errors import ArchiveError, DocumentError
from machineos.service.act import rootfs
from machineos.service.plan.image import User, parse_config, resolve_user

if TYPE_CHECKING:
    from pathlib import Path

PASSWD = (
    b"root:x:0:0:r:/root:/bin/sh\nbroken\napp:x:1000:1001:a:/srv/app:/bin/sh\nbig:x:70000:0::/:\n"
)
GROUP = b"root:x:0:\nweb:x:33:app\n"


def config(**inner: object) -> bytes:
    return json.dumps({"config": inner}).encode()


def test_command_is_entrypoint_then_cmd() -> None:
    found = parse_config(
        config(Entrypoint=["/a", ""], Cmd=["b c"], Env=["X=1=2", "E="], WorkingDir="/w/"), name="i"
    )
    assert found.argv == ("/a", "", "b c")
    assert found.env == (("X", "1=2"), ("E", ""))
    assert (found.folder, found.stop_signal) == ("/w", "SIGTERM")
    assert parse_config(config(Cmd=["x"]), name="i").folder == "/"


@pytest.mark.parametrize(
    ("inner", "path"),
    [
        ({}, "config.Entrypoint"),
        ({"Entrypoint": [], "Cmd": []}, "config.Entrypoint"),
        ({"Entrypoint": [""]}, "config.Entrypoint"),
        ({"Entrypoint": ["a\0b"]}, "config"),
        ({"Entrypoint": ["\ud800"]}, ""),  # refused as JSON already
        ({"Entrypoint": ["a"], "Env": ["HOME"]}, "config.Env[0]"),
        ({"Entrypoint": ["a"], "Env": ["=x"]}, "config.Env[0]"),
        ({"Entrypoint": ["a"], "WorkingDir": "etc"}, "config.WorkingDir"),
        ({"Entrypoint": ["a"], "WorkingDir": "/a/../b"}, "config.WorkingDir"),
        ({"Entrypoint": ["a"], "StopSignal": "SIGTERM\nExecStart=/x"}, "config.StopSignal"),
        ({"Entrypoint": ["a"] * 5000}, "config"),
    ],
)
def test_what_cannot_be_run_is_refused(inner: dict[str, object], path: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_config(config(**inner), name="i")
    assert [fault.path for fault in caught.value.faults] == [path]


def test_config_of_another_shape_is_refused() -> None:
    for data in (b"[]", b'{"config": {"Entrypoint": "sh"}}', b'{"config": {}, "config": {}}'):
        with pytest.raises(DocumentError):
            parse_config(data, name="i")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", User(0, 0, "/root")),
        ("root", User(0, 0, "/root")),
        ("app", User(1000, 1001, "/srv/app")),
        ("app:web", User(1000, 33, "/srv/app")),
        ("app:7", User(1000, 7, "/srv/app")),
        ("1000", User(1000, 1001, "/srv/app")),
        ("4242", User(4242, 0, "/")),
        ("4242:web", User(4242, 33, "/")),
    ],
)
def test_user_is_found_in_the_image(text: str, expected: User) -> None:
    assert resolve_user(text, PASSWD, GROUP, image="i") == expected


@pytest.mark.parametrize(
    "text", ["nobody", "app:", "app:nogroup", "-1", "65536", "big", "0x0", "app:web:x", "1 "]
)
def test_unknown_user_is_refused(text: str) -> None:
    with pytest.raises(DocumentError, match="not a user and group"):
        resolve_user(text, PASSWD, GROUP, image="i")


def test_image_without_passwd_runs_numbers_only() -> None:
    assert resolve_user("5:6", None, None, image="i") == User(5, 6, "/")
    with pytest.raises(DocumentError):
        resolve_user("app", None, None, image="i")


@given(st.text(max_size=20), st.binary(max_size=200))
def test_any_user_file_gives_ids_in_range_or_an_error(text: str, passwd: bytes) -> None:
    try:
        user = resolve_user(text, passwd, passwd, image="i")
    except DocumentError:
        return
    assert 0 <= user.uid <= 65535
    assert 0 <= user.gid <= 65535
    assert user.home.startswith("/")


def test_reading_never_leaves_the_image(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/plain").write_text("plain")
    (root / "etc/link").symlink_to(secret)
    (root / "away").symlink_to(tmp_path)
    os.mkfifo(root / "etc/fifo")
    (root / "etc/big").write_bytes(b"x" * 101)
    assert rootfs.read_file(root, "/etc/plain", image="i") == b"plain"
    assert rootfs.read_file(root, "/etc/absent", image="i") is None
    assert rootfs.read_file(root, "/no/such", image="i") is None
    for path in (
        "/etc/link",
        "/away/secret",
        "/etc/fifo",
        "/etc/../../secret",
        "etc/plain",
        "/etc",
    ):
        with pytest.raises(ArchiveError):
            rootfs.read_file(root, path, image="i")
    with pytest.raises(ArchiveError, match="larger than 100"):
        rootfs.read_file(root, "/etc/big", image="i", limit=100)


def test_mount_targets_must_be_real_folders(tmp_path: Path) -> None:
    (tmp_path / "real/below").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "file").write_text("")
    assert rootfs.folder_problem(tmp_path, "/real/below") == ""
    assert rootfs.folder_problem(tmp_path, "/link/below") == "/link is a symbolic link"
    assert rootfs.folder_problem(tmp_path, "/file") == "/file is not a folder"
    assert rootfs.folder_problem(tmp_path, "/real/no") == "/real/no does not exist"
    assert rootfs.present_folders(tmp_path, ("/real", "/absent"), image="i") == ("/real",)
    with pytest.raises(ArchiveError, match="image i: nothing can be mounted at /link"):
        rootfs.present_folders(tmp_path, ("/link",), image="i")
    with pytest.raises(ArchiveError, match="/absent does not exist"):
        rootfs.require_folders(tmp_path, ("/absent",), image="i")
