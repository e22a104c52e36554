from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.core.digest import Digest
from machineos.errors import DigestError, DocumentError, MissingError, VerificationError
from machineos.oci.model.atomfs import OLD_ROOT_HASH
from machineos.service.plan.image import (
    MAX_CONFIG,
    Layer,
    User,
    check_blob,
    check_manifest,
    parse_config,
    resolve_user,
)
from unit.service.bed import TYPE, Bed, descriptor

NOTHING = "is empty, and so is Cmd: nothing to run"
PASSWD = (
    b"root:x:0:0:r:/root:/bin/sh\nbroken\n#app:x:7:7:a:/a:/bin/sh\n:x:8:8:a:/a:/bin/sh\n"
    b"app:x:1000:1001:a:/srv/app:/bin/sh\nbig:x:70000:0::/:\nodd:x:5:x:o:/o:/bin/sh\n"
    b"lost:x:6:7:l:relative:/bin/sh\nlast:x:65535:65535:l:/l:/bin/sh\n\xff:x:9:9:a:/a:/bin/sh\n"
)
GROUP = b"root:x:0:\nweb:x:33:app\nbad:x:70000:\n#web:x:1:\nx:1\n"


def config(**inner: object) -> bytes:
    return json.dumps({"config": inner}).encode()


def blob(data: bytes) -> Digest:
    return Digest.of(data)


def test_the_bytes_of_a_blob_are_those_that_its_digest_names() -> None:
    digest = blob(b"data")
    assert check_blob(b"data", digest, what="w") == b"data"
    with pytest.raises(MissingError) as missing:
        check_blob(None, digest, what="w")
    assert str(missing.value) == f"w: {digest} is not in the store"
    for data in (b"dat", b"datA", b""):
        with pytest.raises(DigestError) as wrong:
            check_blob(data, digest, what="w")
        assert str(wrong.value).startswith("w: ")
        assert wrong.value.hint == "the store is damaged: install again"


def manifest(**changes: object) -> bytes:
    layer = descriptor(TYPE, Digest("sha256", "1" * 64), 4096)
    body: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", blob(b"c"), 1),
        "layers": [{**layer, "annotations": {OLD_ROOT_HASH: "2" * 64}}],
    }
    body.update(changes)
    return json.dumps(body).encode()


SERVICE = msgspec.structs.replace(
    Bed().service("web"),
    config=str(blob(b"c")),
    layer=msgspec.structs.replace(
        Bed().service("web").layer, digest="sha256:" + "1" * 64, root_hash="2" * 64
    ),
)


def test_a_manifest_says_what_was_handed_over() -> None:
    found = check_manifest(SERVICE, manifest())
    assert found.layer == Layer(Digest("sha256", "1" * 64), 4096, TYPE, "2" * 64)
    assert found.filesystem == "squashfs"
    assert found.config == blob(b"c")


def layers(*changes: dict[str, Any]) -> bytes:
    (layer,) = json.loads(manifest())["layers"]
    return manifest(layers=[{**layer, **each} for each in changes])


@pytest.mark.parametrize(
    ("data", "words", "hint"),
    [
        (
            manifest(config=descriptor("application/vnd.oci.image.config.v1+json", blob(b"d"), 1)),
            f"web: the image's configuration is {blob(b'd')}, not {blob(b'c')}",
            "",
        ),
        (
            manifest(layers=[]),
            "web: the image has 0 layers, not one",
            "mosb squashes every image into one layer when it publishes",
        ),
        (
            layers({}, {}),
            "web: the image has 2 layers, not one",
            "mosb squashes every image into one layer when it publishes",
        ),
        (
            layers({"mediaType": "application/vnd.oci.image.layer.v1.tar"}),
            "web: layers of type 'application/vnd.oci.image.layer.v1.tar' do not mount",
            "",
        ),
        (
            layers({"digest": "sha256:" + "3" * 64}),
            "web: the image's layer is not the one handed over",
            "",
        ),
        (
            layers({"annotations": {OLD_ROOT_HASH: "3" * 64}}),
            "web: the image's layer is not the one handed over",
            "",
        ),
    ],
)
def test_a_manifest_that_says_something_else(data: bytes, words: str, hint: str) -> None:
    with pytest.raises(VerificationError) as caught:
        check_manifest(SERVICE, data)
    assert (str(caught.value), caught.value.hint) == (words, hint)


def test_a_manifest_of_another_shape() -> None:
    with pytest.raises(DocumentError, match=r"^web: image manifest: "):
        check_manifest(SERVICE, b"[]")


def test_command_is_entrypoint_then_cmd() -> None:
    found = parse_config(
        config(Entrypoint=["/a", ""], Cmd=["b c"], Env=["X=1=2", "E="], WorkingDir="/w/"), name="i"
    )
    assert found.argv == ("/a", "", "b c")
    assert found.env == (("X", "1=2"), ("E", ""))
    assert (found.folder, found.stop_signal) == ("/w", "SIGTERM")
    assert parse_config(config(Cmd=["x"]), name="i").folder == "/"
    odd = parse_config(config(Cmd=["x"], WorkingDir="//~-a b.-~//"), name="i")
    assert odd.folder == "/~-a b.-~"


@pytest.mark.parametrize(
    ("inner", "path", "message"),
    [
        ({}, "config.Entrypoint", NOTHING),
        ({"Entrypoint": [], "Cmd": []}, "config.Entrypoint", NOTHING),
        ({"Entrypoint": [""]}, "config.Entrypoint", NOTHING),
        ({"Entrypoint": ["a\0b"]}, "config", "'a\\x00b' is not text for a command line"),
        ({"Cmd": ["a", "\0"]}, "config", "'\\x00' is not text for a command line"),
        ({"Cmd": ["a"], "Env": ["X=\0"]}, "config", "'X=\\x00' is not text for a command line"),
        ({"Cmd": ["a"], "User": "\0"}, "config", "'\\x00' is not text for a command line"),
        ({"Cmd": ["\0" * 99]}, "config", f"{chr(0) * 80!r} is not text for a command line"),
        ({"Entrypoint": ["a"], "Env": ["HOME"]}, "config.Env[0]", "'HOME' is not NAME=VALUE"),
        ({"Entrypoint": ["a"], "Env": ["A=1", "=x"]}, "config.Env[1]", "'=x' is not NAME=VALUE"),
        ({"Cmd": ["a"], "Env": ["x" * 99]}, "config.Env[0]", f"{'x' * 80!r} is not NAME=VALUE"),
        ({"Entrypoint": ["a"], "WorkingDir": "etc"}, "config.WorkingDir",
         "'etc' is not a plain absolute path"),
        ({"Entrypoint": ["a"], "WorkingDir": "/a/../b"}, "config.WorkingDir",
         "'/a/../b' is not a plain absolute path"),
        ({"Entrypoint": ["a"], "WorkingDir": "/a/./b"}, "config.WorkingDir",
         "'/a/./b' is not a plain absolute path"),
        ({"Entrypoint": ["a"], "WorkingDir": "/a\nb"}, "config.WorkingDir",
         "'/a\\nb' is not a plain absolute path"),
        ({"Cmd": ["a"], "WorkingDir": "x" * 99}, "config.WorkingDir",
         f"{'x' * 80!r} is not a plain absolute path"),
        ({"Entrypoint": ["a"], "StopSignal": "SIGTERM\nExecStart=/x"}, "config.StopSignal",
         "'SIGTERM\\nExecStart=/x' is not a signal"),
        ({"Cmd": ["a"], "StopSignal": "TERM"}, "config.StopSignal", "'TERM' is not a signal"),
        ({"Entrypoint": ["a"], "StopSignal": "SIG" + "X" * 99}, "config.StopSignal",
         f"{('SIG' + 'X' * 37)!r} is not a signal"),
        ({"Entrypoint": ["a"], "StopSignal": "100"}, "config.StopSignal", "'100' is not a signal"),
        ({"Entrypoint": ["a"] * 4097}, "config", "has more than 4096 words"),
        ({"Entrypoint": ["a"], "Env": ["A=1"] * 4097}, "config", "has more than 4096 words"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused(inner: dict[str, object], path: str, message: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_config(config(**inner), name="i")
    assert [str(fault) for fault in caught.value.faults] == [f"{path}: {message}"]
    assert str(caught.value).startswith("i: ")


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGRTMIN+3", "SIG" + "X" * 12, "9", "15"])
def test_signals(signal: str) -> None:
    assert parse_config(config(Cmd=["a"], StopSignal=signal), name="i").stop_signal == signal


def test_the_most_that_can_be_run() -> None:
    found = parse_config(config(Cmd=["a"] * 4096, Env=["A=1"] * 4096), name="i")
    assert (len(found.argv), len(found.env)) == (4096, 4096)


def test_all_faults_at_once() -> None:
    bad = config(Env=["x"], WorkingDir="y", StopSignal="z", User="\0")
    with pytest.raises(DocumentError) as caught:
        parse_config(bad, name="i")
    assert [fault.path for fault in caught.value.faults] == [
        "config.Entrypoint", "config", "config.Env[0]", "config.WorkingDir", "config.StopSignal",
    ]  # fmt: skip


def test_config_of_another_shape_is_refused() -> None:
    for data in (
        b"[]",
        b'{"config": {"Entrypoint": "sh"}}',
        b'{"config": {}, "config": {}}',
        b'{"architecture": 1}',
        b'{"rootfs": 1}',
        b" " * (MAX_CONFIG + 1),
    ):
        with pytest.raises(DocumentError):
            parse_config(data, name="i")
    with pytest.raises(DocumentError, match="nothing to run"):
        parse_config(b"{}", name="i")
    data = config(Cmd=["a"])
    assert parse_config(data + b" " * (MAX_CONFIG - len(data)), name="i").argv == ("a",)


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
        (":web", User(0, 33, "/root")),
        ("0:5", User(0, 5, "/root")),
        ("lost", User(6, 7, "/")),
        ("65535:65535", User(65535, 65535, "/l")),
        ("last", User(65535, 65535, "/l")),
        ("odd:3", User(5, 3, "/o")),
        ("8", User(8, 0, "/")),
    ],
)
def test_user_is_found_in_the_image(text: str, expected: User) -> None:
    assert resolve_user(text, PASSWD, GROUP, image="i") == expected


@pytest.mark.parametrize(
    "text",
    [
        "nobody", "app:", "app:nogroup", "-1", "65536", "big", "0x0", "app:web:x", "1 ",
        "app:65536", "app:bad", "1:-1", "000000", "odd",
    ],
)  # fmt: skip
def test_unknown_user_is_refused(text: str) -> None:
    with pytest.raises(DocumentError) as caught:
        resolve_user(text, PASSWD, GROUP, image="i")
    assert str(caught.value) == (
        f"i: 1 fault\n  config.User: {text!r} is not a user and group of the image"
    ).replace("i: ", "image i: ", 1)
    assert caught.value.hint == "use numbers, or add them to the image's /etc/passwd and /etc/group"


def test_a_long_user_is_cut_in_the_message() -> None:
    with pytest.raises(DocumentError, match=f"{'x' * 80!r} is not a user"):
        resolve_user("x" * 99, None, None, image="i")


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
