"""AppArmor: which profile for containers this kernel has loaded."""

from __future__ import annotations

from pathlib import Path

NONE = "unconfined"
DEFAULT_PROFILE = "lxc-container-default-cgns"
_PROFILES = Path("/sys/kernel/security/apparmor/profiles")
_ENABLED = Path("/sys/module/apparmor/parameters/enabled")


def container_profile(enabled: Path = _ENABLED, profiles: Path = _PROFILES) -> str:
    """Return the profile for containers that this kernel has, NONE if it has none."""
    try:
        if enabled.read_text().strip() != "Y":
            return NONE
        loaded = {line.rpartition(" (")[0] for line in profiles.read_text().splitlines()}
    except OSError:
        return NONE
    return DEFAULT_PROFILE if DEFAULT_PROFILE in loaded else NONE
