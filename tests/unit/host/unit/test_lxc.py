from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from machineos.errors import ToolError
from machineos.host.unit import lxc

if TYPE_CHECKING:
    from pathlib import Path


def test_values_are_quoted_whole() -> None:
    assert lxc.render([("a.b", ' x "y" ')]) == 'a.b = " x "y" "\n'
    for bad in ("a\nb", "a\0b"):
        with pytest.raises(ToolError):
            lxc.render([("a.b", bad)])


def test_mount_entries_escape_as_fstab() -> None:
    key, value = lxc.mount_entry("/a b\\c", "/d\te", "none", "bind")
    assert (key, value) == ("lxc.mount.entry", "/a\\040b\\134c d\\011e none bind 0 0")


def test_apparmor_profile_is_used_only_when_loaded(tmp_path: Path) -> None:
    enabled, profiles = tmp_path / "enabled", tmp_path / "profiles"
    assert lxc.apparmor_profile(enabled, profiles) == "unconfined"
    enabled.write_text("Y\n")
    assert lxc.apparmor_profile(enabled, profiles) == "unconfined"
    profiles.write_text("other (enforce)\n")
    assert lxc.apparmor_profile(enabled, profiles) == "unconfined"
    profiles.write_text("lxc-container-default-cgns (enforce)\n")
    assert lxc.apparmor_profile(enabled, profiles) == "lxc-container-default-cgns"
    enabled.write_text("N\n")
    assert lxc.apparmor_profile(enabled, profiles) == "unconfined"
