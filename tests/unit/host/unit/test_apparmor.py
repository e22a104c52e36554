from __future__ import annotations

from typing import TYPE_CHECKING

from machineos.host.unit.apparmor import NONE, container_profile

if TYPE_CHECKING:
    from pathlib import Path


def test_apparmor_profile_is_used_only_when_loaded(tmp_path: Path) -> None:
    enabled, profiles = tmp_path / "enabled", tmp_path / "profiles"
    assert container_profile(enabled, profiles) == NONE
    enabled.write_text("Y\n")
    assert container_profile(enabled, profiles) == NONE
    profiles.write_text("other (enforce)\n")
    assert container_profile(enabled, profiles) == NONE
    profiles.write_text("lxc-container-default-cgns (enforce)\n")
    assert container_profile(enabled, profiles) == "lxc-container-default-cgns"
    enabled.write_text("N\n")
    assert container_profile(enabled, profiles) == NONE


def test_no_profile_has_the_name_that_lxc_knows() -> None:
    assert NONE == "unconfined"
