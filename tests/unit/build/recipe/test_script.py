"""What a script gets in its sandbox."""

from __future__ import annotations

from pathlib import Path

import pytest

from machineos.build.recipe import script
from machineos.build.recipe.script import Script
from machineos.errors import ToolError
from machineos.host.pack.container import Bind, Box


def test_the_first_line_chooses_the_interpreter() -> None:
    assert Script("make", "s").argv == ["/bin/sh", "-ex", "/stacker/run"]
    assert Script("#!/bin/x\nmake", "s").argv == ["/stacker/run"]


def test_a_script_ends_with_a_line_end() -> None:
    assert Script("make", "s").content == "make\n"
    assert Script("make\n", "s").content == "make\n"


PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@pytest.mark.parametrize("network", [True, False])
def test_the_box_has_all_that_the_script_sees(network: bool) -> None:
    one = Script("make", "s", network=network, timeout=90.0)
    box = script.script_box(
        one, Path("/root"), Path("/i"), {"A": "b", "PATH": "/p"}, resolver=network
    )
    assert box == Box(
        ("/bin/sh", "-ex", "/stacker/run"),
        root=Path("/root"),
        binds=(Bind(Path("/i"), "/stacker", writable=False),),
        network="user" if network else "none",
        environment=(("PATH", "/p"), ("HOME", "/root"), ("LANG", "C.UTF-8"), ("A", "b")),
        inherit=PROXIES if network else (),
        resolver=network,
        limits=(("NPROC", 16384), ("CORE", 0)),
    )


def test_the_environment_is_ours_unless_the_recipe_says_otherwise() -> None:
    box = script.script_box(Script("x", "s"), Path("/r"), Path("/i"), {}, resolver=False)
    assert dict(box.environment) == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
    }
    assert Script("x", "s").timeout == 4 * 3600.0
    assert (script.MOUNT_POINTS, script.RESOLVER) == (
        ("proc", "dev", "stacker"),
        "/etc/resolv.conf",
    )


def test_a_script_that_fails_says_where_its_words_are() -> None:
    script.require_good(Script("x", "r: web"), 0, "noise", Path("/log"))
    with pytest.raises(ToolError) as caught:
        script.require_good(Script("x", "r: web"), 2, "the end", Path("/log"))
    assert caught.value.message == "r: web: the script ended with status 2:\nthe end"
    assert caught.value.hint == "all it printed is in /log"
