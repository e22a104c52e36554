"""What the sandbox is told of a script."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from machineos.build.recipe import script
from machineos.build.recipe.script import Script
from machineos.core.command import Command
from machineos.errors import ToolError
from machineos.host.pack.unshare import argv_isolated


def test_the_first_line_chooses_the_interpreter() -> None:
    assert Script("make", "s").argv == ["/bin/sh", "-ex", "/stacker/run"]
    assert Script("#!/bin/x\nmake", "s").argv == ["/stacker/run"]


def test_a_script_ends_with_a_line_end() -> None:
    assert Script("make", "s").content == "make\n"
    assert Script("make\n", "s").content == "make\n"


PROXIES = ["http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"]


@pytest.mark.parametrize("network", [True, False])
def test_the_command_has_all_that_the_script_sees(network: bool) -> None:
    one = Script("make", "s", network=network, timeout=90.0)
    command = script.sandbox_command(
        one, ["python", "confine"], Path("/root"), [("/i", "/stacker")], {"A": "b", "PATH": "/p"}
    )
    plan = {
        "root": "/root",
        "binds": [("/i", "/stacker")],
        "argv": ["/bin/sh", "-ex", "/stacker/run"],
        "inherit": PROXIES if network else [],
        "environment": {"PATH": "/p", "HOME": "/root", "LANG": "C.UTF-8", "A": "b"},
    }
    inner = ["python", "confine", json.dumps(plan)]
    assert command == Command(tuple(argv_isolated(inner, network=network)), 90.0, success=None)


def test_the_environment_is_ours_unless_the_recipe_says_otherwise() -> None:
    command = script.sandbox_command(Script("x", "s"), [], Path("/r"), [], {})
    assert json.loads(command.argv[-1])["environment"] == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
    }
    assert command.timeout == 4 * 3600.0
    assert (script.MOUNT_POINTS, script.RESOLVER) == (
        ("proc", "dev", "stacker"),
        "/etc/resolv.conf",
    )


def test_namespaces_of_its_own() -> None:
    flags = ["--mount-proc", "--propagation=private", "--uts", "--ipc", "--pid", "--fork"]
    flags.append("--kill-child")
    assert argv_isolated(["x", "y"]) == ["unshare", *flags, "--", "x", "y"]
    assert argv_isolated(["x"], network=False) == ["unshare", *flags, "--net", "--", "x"]


def test_a_script_that_fails_says_where_its_words_are() -> None:
    script.require_good(Script("x", "r: web"), 0, "noise", Path("/log"))
    with pytest.raises(ToolError) as caught:
        script.require_good(Script("x", "r: web"), 2, "the end", Path("/log"))
    assert caught.value.message == "r: web: the script ended with status 2:\nthe end"
    assert caught.value.hint == "all it printed is in /log"
