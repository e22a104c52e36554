"""The first thing that mosd does: read what the initrd handed over."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from machineos.core.files import read_bounded
from machineos.document.between.handover import MAX_SIZE, Handover, parse_handover
from machineos.errors import MissingError
from machineos.host.disk import integrity, lvm
from machineos.host.disk.tools import VolumeGroup
from machineos.state.volumes.sealed import GROUP, INTEGRITY
from machineos.state.volumes.service import LogicalVolumes


@dataclass(frozen=True, slots=True)
class Places:
    """The paths of the host that mosd works with."""

    run: Path = Path("/run/machineos")
    units: Path = Path("/run/systemd/system")
    resolv_conf: Path = Path("/run/systemd/resolve/resolv.conf")

    @property
    def handover(self) -> Path:
        """What the initrd wrote."""
        return self.run / "boot.json"

    @property
    def status(self) -> Path:
        """What mosctl reads."""
        return self.run / "status.json"


@dataclass(frozen=True, slots=True)
class Start:
    """What was handed over, and the volumes."""

    places: Places
    handover: Handover
    storage: LogicalVolumes


def begin(places: Places) -> Start:
    """Read the handover. Raises: MissingError, DocumentError."""
    try:
        data = read_bounded(places.handover, MAX_SIZE)
    except MissingError as error:
        raise MissingError(
            f"{places.handover} does not exist", hint="mosd runs only on a booted appliance"
        ) from error
    handover = parse_handover(data, name=str(places.handover))
    group = VolumeGroup(lvm.Group(GROUP, integrity.mapped(INTEGRITY)))
    storage = LogicalVolumes(group, bytes.fromhex(handover.volumes_key))
    return Start(places, handover, storage)
