from __future__ import annotations

from pathlib import Path

import pytest

from machineos.errors import ToolError
from machineos.host.unit import lxc


def test_values_are_quoted_whole() -> None:
    assert lxc.render([("a.b", ' x "y" ')]) == 'a.b = " x "y" "\n'
    assert lxc.render([("a", ""), ("b", "'")]) == 'a = ""\nb = "\'"\n'
    for bad in ("a\nb", "a\0b", "a\rb", "a\x85b", "a\x1bb"):
        assert not lxc.fits_in_file(bad)
        with pytest.raises(ToolError) as caught:
            lxc.render([("a.b", bad)])
        assert str(caught.value) == (
            "LXC: the value of a.b holds a character that is not printable"
        )


def test_mount_entries_escape_as_fstab() -> None:
    key, value = lxc.mount_entry("/a b\\c", "/d\te", "none", "bind")
    assert (key, value) == ("lxc.mount.entry", "/a\\040b\\134c d\\011e none bind 0 0")


def test_the_command_of_a_container() -> None:
    argv = lxc.argv_start(
        "web",
        folder=Path("/run/lxc"),
        config=Path("/run/lxc/web/config"),
        defines=[("lxc.environment", "A=1\n2")],
        command=["/bin/x", "--", ""],
    )
    assert argv == [
        "/usr/bin/lxc-start", "--foreground", "--name=web", "--lxcpath=/run/lxc",
        "--rcfile=/run/lxc/web/config", '--define=lxc.environment="A=1\n2"',
        "--", "/bin/x", "--", "",
    ]  # fmt: skip
    # newuidmap is in /usr/bin, and must not be found.
    assert lxc.PATH == "/usr/sbin:/sbin"
