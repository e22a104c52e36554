"""What the root says to networkd, resolved and journald. A guest shows that nothing listens."""

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


def test_the_log_goes_to_the_disk_only_where_there_is_a_volume_for_it() -> None:
    """Not into the memory that /var is in."""
    journal = section("journald/10-machineos.conf", "Journal")
    assert journal["storage"] == "auto"
    assert section("systemd/mosd-log.service", "Unit")["conditionpathismountpoint"] == "/var/log"


def test_all_of_it_gets_into_the_root() -> None:
    recipe = (HOSTFS / "recipe.yaml").read_text()
    finish = (HOSTFS / "finish").read_text()
    folders = {
        "network": "network", "resolved": "resolved.conf.d", "journald": "journald.conf.d",
    }  # fmt: skip
    for folder, place in folders.items():
        assert f"    - {folder}\n" in recipe
        assert f"cp $imports/{folder}/* /usr/lib/systemd/{place}/\n" in finish
