"""Checks the machine that this runs on: ``python -m contracts.here GROUP FOLDER [IMAGE]``.

Prints one line for each check that failed, and ends with 1 if there was one. GROUP is ``units``
(a systemd is enough) or ``all`` (root on an appliance, with its volume group). What it makes lies
in FOLDER; IMAGE is a squashfs with the tree of the contract.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from contracts.linux import FileVolumes, LinuxPlace
from contracts.service import CONTRACT, UNITS, run
from machineos.host.disk.integrity import mapped
from machineos.host.disk.lvm import Group
from machineos.host.disk.tools import VolumeGroup
from machineos.host.unit.systemd import Systemctl
from machineos.state.volumes.sealed import GROUP, INTEGRITY
from machineos.state.volumes.service import LogicalVolumes

SYSTEM_UNITS = Path("/run/systemd/system")
HANDOVER = Path("/run/machineos/boot.json")


def main(group: str, base: Path, image: Path | None) -> int:
    """Run the checks of one group."""
    units = Systemctl()
    if group == "units":
        volumes = FileVolumes(base / "volumes", base / "dev")
        place = LinuxPlace(
            base, b"", units=units, unit_folder=SYSTEM_UNITS, volumes=volumes, group=base / "dev"
        )
        failed = run(place, UNITS)
    else:
        assert image is not None
        recipient = bytes.fromhex(json.loads(HANDOVER.read_bytes())["volumes_key"])
        real = LogicalVolumes(VolumeGroup(Group(GROUP, mapped(INTEGRITY))), recipient)
        # The folder of units is the machine's own: what is in it is checked where it is ours alone.
        place = LinuxPlace(
            base,
            image.read_bytes(),
            units=units,
            unit_folder=SYSTEM_UNITS,
            volumes=real,
            group=real.folder,
        )
        checks = tuple(one for one in CONTRACT if one.__name__ != "check_what_is_around")
        failed = run(place, checks)
    print(f"{len(failed)} failed")
    for line in failed:
        print(line)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]) if sys.argv[3:] else None))
