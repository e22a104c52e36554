"""What the configuration of an image may ask for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machineos.document.model.image import Run, User
from machineos.document.rules import configs
from machineos.document.rules.configs import Account, find_user
from unit.document.rules.samples import rule

PASSWD = (
    b"root:x:0:0:r:/root:/bin/sh\nbroken\napp:x:1000:1001:a:/srv/app:/bin/sh\n"
    b"big:x:70000:0::/:\ngid:x:5:70000::/:\nodd:x:7:8::rel:\n#app2:x:9:9::/:\n"
    b":x:11:11:a:/a:/bin/sh\n\xff:x:12:12:a:/a:/bin/sh\nlast:x:65535:65535:l:/l:/bin/sh\n"
)
GROUP = b"root:x:0:\nweb:x:33:app\nbig:x:70000:\n#x:x:1:\ny:1\n"


def said(**changes: object) -> dict[str, list[tuple[str, str]]]:
    """Return what each rule says of a configuration that is good otherwise."""
    wire = {"user": "said_user", "folder": "said_folder", "signal": "said_signal"}
    values: dict[str, Any] = {"entrypoint": ("/run",)}
    values |= {wire.get(name, name): value for name, value in changes.items()}
    run = Run(**values)
    found = {one.name: list(one.breaches(run)) for one in configs.RULES}
    return {name: messages for name, messages in found.items() if messages}


def test_a_good_configuration() -> None:
    assert said() == {}
    assert said(entrypoint=None, cmd=("x",)) == {}
    assert said(
        env=("A=", "B=1=2", "C= "), user="app:web", folder="/srv/../srv"[:4], signal="SIGRTMIN+3"
    ) == {}  # fmt: skip


@pytest.mark.parametrize("entrypoint", [None, (), ("",), ("", "x")])
def test_a_command_is_needed(entrypoint: tuple[str, ...] | None) -> None:
    assert said(entrypoint=entrypoint) == {
        "config-command": [
            ("config.Entrypoint", "is empty, and so is Cmd: nothing to run"),
        ]
    }


def test_how_many_words_there_may_be() -> None:
    message = [("config", "has more than 4096 words")]
    assert said(entrypoint=("a",) * 2048, cmd=("b",) * 2048, env=("A=b",) * 4096) == {}
    assert said(entrypoint=("a",) * 2048, cmd=("b",) * 2049) == {"config-words": message}
    assert said(env=("A=b",) * 4097) == {"config-words": message}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"entrypoint": ("a", "b\0c")}, "b\0c"),
        ({"cmd": ("\0",)}, "\0"),
        ({"env": ("A=\0",)}, "A=\0"),
        ({"user": "\0"}, "\0"),
    ],
)
def test_no_word_holds_a_zero_byte(changes: dict[str, object], word: str) -> None:
    assert said(**changes) == {
        "config-text": [("config", f"{word!r} is not text for a command line")]
    }


def test_a_folder_with_a_zero_byte_breaks_two_rules() -> None:
    assert sorted(said(folder="/\0")) == ["config-folder", "config-text"]


def test_an_environment_is_made_of_names_and_values() -> None:
    assert said(env=("A=b", "HOME", "=x")) == {
        "config-env": [
            ("config.Env[1]", "'HOME' is not NAME=VALUE"),
            ("config.Env[2]", "'=x' is not NAME=VALUE"),
        ]
    }
    assert said(env=("x" * 100,))["config-env"] == [
        ("config.Env[0]", f"'{'x' * 80}' is not NAME=VALUE")
    ]


@pytest.mark.parametrize(
    "user", ["", "0", "65535", "app", "app:web", ":web", "5:6", "65535:65535", "1 ", "-1", "00001"]
)
def test_a_user_that_an_image_can_have(user: str) -> None:
    assert said(user=user) == {}


@pytest.mark.parametrize(
    "user", ["65536", "99999", "100000", "000001", "app:", "a:b:c", "0:65536", ":", "9" * 5000]
)
def test_a_user_that_no_image_can_have(user: str) -> None:
    message = f"{user[:80]!r} is not a user and group that an image can have"
    assert said(user=user) == {"config-user": [("config.User", message)]}


@pytest.mark.parametrize("folder", ["etc", "/a/../b", "/a/./b", "/..", ".", "/a\nb"])
def test_a_working_folder_is_a_plain_path(folder: str) -> None:
    message = f"{folder!r} is not a plain absolute path"
    assert said(folder=folder) == {"config-folder": [("config.WorkingDir", message)]}


@pytest.mark.parametrize("folder", ["", "/", "/a/", "//a", "/a..b", "/é"])
def test_paths_that_are_plain(folder: str) -> None:
    assert said(folder=folder) == {}


@pytest.mark.parametrize("signal", ["SIG", "TERM", "sigterm", "123", "SIGTERM\n", "SIG" + "A" * 13])
def test_a_signal_has_a_name_or_a_number(signal: str) -> None:
    message = f"{signal!r} is not a signal"
    assert said(signal=signal) == {"config-signal": [("config.StopSignal", message)]}


def test_what_is_long_is_cut_in_the_message() -> None:
    assert said(cmd=("\0" * 99,))["config-text"] == [
        ("config", f"{chr(0) * 80!r} is not text for a command line")
    ]
    assert said(folder="x" * 99)["config-folder"] == [
        ("config.WorkingDir", f"{'x' * 80!r} is not a plain absolute path")
    ]
    assert said(signal="x" * 99)["config-signal"] == [
        ("config.StopSignal", f"{'x' * 40!r} is not a signal")
    ]
    long = Account("x" * 99, None, None)
    assert list(rule("config-user-known").breaches(long)) == [
        ("config.User", f"{'x' * 80!r} is not a user and group of the image")
    ]


@pytest.mark.parametrize("signal", ["", "SIGTERM", "9", "15", "SIG" + "A" * 12])
def test_signals_that_there_are(signal: str) -> None:
    assert said(signal=signal) == {}


# -- users


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", User(0, 0, "/root")),
        ("0", User(0, 0, "/root")),
        ("root", User(0, 0, "/root")),
        ("app", User(1000, 1001, "/srv/app")),
        ("1000", User(1000, 1001, "/srv/app")),
        ("app:web", User(1000, 33, "/srv/app")),
        ("app:0", User(1000, 0, "/srv/app")),
        (":web", User(0, 33, "/root")),
        ("5000", User(5000, 0, "/")),
        ("5000:6000", User(5000, 6000, "/")),
        ("65534:65535", User(65534, 65535, "/")),
        ("65535:65535", User(65535, 65535, "/l")),
        ("last", User(65535, 65535, "/l")),
        ("11", User(11, 0, "/")),
        ("\ufffd", User(12, 12, "/a")),
        ("odd", User(7, 8, "/")),
        ("gid:7", User(5, 7, "/")),
        ("70000", None),  # the number of big, and too high for anybody
        ("big", None),
        ("gid", None),
        ("nobody", None),
        ("app2", None),
        ("broken", None),
        ("app:", None),
        ("app:nogroup", None),
        ("app:x", None),
        ("app:#x", None),
        ("app:y", None),
        ("app:big", None),
        ("-1", None),
        ("65536", None),
        ("0x0", None),
        ("app:web:x", None),
        ("1 ", None),
    ],
)
def test_whom_a_user_means(text: str, expected: User | None) -> None:
    account = Account(text, PASSWD, GROUP)
    assert find_user(account) == expected
    message = f"{text!r} is not a user and group of the image"
    found = list(rule("config-user-known").breaches(account))
    assert found == ([] if expected else [("config.User", message)])


def test_an_image_without_files_knows_numbers_only() -> None:
    assert find_user(Account("5:6", None, None)) == User(5, 6, "/")
    assert find_user(Account("", None, None)) == User(0, 0, "/")
    assert find_user(Account("app", None, None)) is None
    assert find_user(Account("0:web", None, None)) is None


def test_files_of_users_that_cannot_be_read() -> None:
    assert list(configs.USER_FILES.breaches(["", ""])) == []
    found = list(configs.USER_FILES.breaches(["", "/etc/group is a link"]))
    assert found == [("", "/etc/group is a link")]


def test_the_first_entry_counts() -> None:
    twice = b"app:x:1:2::/one:\napp:x:3:4::/two:\n"
    assert find_user(Account("app", twice, None)) == User(1, 2, "/one")


@given(st.text(max_size=20), st.binary(max_size=200))
def test_any_files_give_ids_in_range_or_nobody(text: str, files: bytes) -> None:
    user = find_user(Account(text, files, files))
    if user is not None:
        assert 0 <= user.uid <= 65535
        assert 0 <= user.gid <= 65535
        assert user.home.startswith("/")
