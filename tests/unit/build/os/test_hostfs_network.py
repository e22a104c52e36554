"""What the root says to networkd and resolved. That nothing listens is seen in a guest."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

import machineos

HOSTFS = Path(machineos.__file__).parent / "build/os/hostfs"


def section(file: str, name: str) -> dict[str, str]:
    parser = ConfigParser(strict=False)
    parser.read_string((HOSTFS / file).read_text())
    return dict(parser[name])


def test_nobody_is_listened_to_but_who_gives_out_addresses() -> None:
    resolved = section("resolved/10-machineos.conf", "Resolve")
    assert resolved == {"llmnr": "no", "multicastdns": "no"}
    assert section("network/80-wired.network", "Network") == {
        "dhcp": "yes",
        "llmnr": "no",
        "multicastdns": "no",
        "lldp": "no",
    }


def test_both_get_into_the_root() -> None:
    recipe = (HOSTFS / "recipe.yaml").read_text()
    finish = (HOSTFS / "finish").read_text()
    for folder, place in (("network", "network"), ("resolved", "resolved.conf.d")):
        assert f"    - {folder}\n" in recipe
        assert f"cp $imports/{folder}/* /usr/lib/systemd/{place}/\n" in finish
