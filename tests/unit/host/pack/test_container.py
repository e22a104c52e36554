"""What is told to the program that makes a container."""

from __future__ import annotations

import json
from pathlib import Path

from machineos.host.pack.container import Bind, Box, Ids, command, plan, speaking


def test_the_plan_has_all_of_the_box() -> None:
    box = Box(
        ("make", "it"),
        root=Path("/tree"),
        binds=(Bind(Path("/a b"), "/in"), Bind(Path("/c"), "/out", writable=True)),
        network="user",
        environment=(("A", "b"),),
        folder="/in",
        resolver=True,
        scratch=(10, 3),
        limits=(("NPROC", 5),),
        inherit=("http_proxy",),
    )
    assert json.loads(plan(box, Ids(7, 8, 9, 7, (1, 2)))) == {
        "enter": [1, 2], "ids": [7, 8], "count": 9, "root": "/tree",
        "binds": [["/a b", "/in", False], ["/c", "/out", True]], "network": "user",
        "argv": ["make", "it"], "environment": {"A": "b"}, "inherit": ["http_proxy"],
        "folder": "/in", "resolver": "nameserver 10.0.2.3\n", "scratch": [10, 3],
        "limits": {"NPROC": 5},
    }  # fmt: skip


def test_without_more_it_gets_nothing() -> None:
    told = json.loads(plan(Box(("x",)), Ids(7, 8, 9, 7)))
    assert (told["root"], told["network"], told["binds"]) == ("", "none", [])
    assert (told["enter"], told["resolver"], told["scratch"]) == (None, "", None)
    assert set(told["environment"]) == {"PATH", "LANG", "TZ"}


def test_no_argument_shows_the_plan() -> None:
    made = command(["python", "confine"], 5, timeout=300.0)
    assert (made.argv, made.pass_fds) == (("python", "confine", "5"), (5,))
    assert (made.timeout, made.success) == (300.0, None)


def test_a_capability_of_a_file_names_the_root_of_the_container() -> None:
    second = bytes([1, 0, 0, 2]) + bytes(range(16))
    assert Ids(0, 0, 1, 0).capability(second) == second
    third = Ids(70000, 0, 1, 0).capability(second)
    assert third == bytes([1, 0, 0, 3]) + bytes(range(16)) + (70000).to_bytes(4, "little")
    assert Ids(70000, 0, 1, 0).capability(third) == third
    assert Ids(70000, 0, 1, 0).capability(b"x") == b"x"


def test_a_program_that_speaks_says_what_was_wrong_only_when_it_was() -> None:
    shell, flag, script = speaking("true")
    assert (shell, flag) == ("sh", "-c")
    assert script == "{ true; } 2>/tmp/said || { tail -c 200 /tmp/said >&2; exit 1; }"
