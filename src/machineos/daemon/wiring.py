"""Builds every object of mosd once, from the handover; the only place that knows which is which."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.core.clock import SystemClock
from machineos.core.files import read_bounded
from machineos.daemon.adapters import Forwarding, VerityVolumes
from machineos.daemon.loop import Daemon
from machineos.errors import MissingError
from machineos.host import lvm, lxc
from machineos.host.systemd import Systemctl, notify
from machineos.manifest.handover import MAX_SIZE, parse_handover
from machineos.service.manager import Manager
from machineos.service.storage import LogicalVolumes
from machineos.service.surroundings import Folders

if TYPE_CHECKING:
    from collections.abc import Callable

    from machineos.core.clock import Clock


DATA_GROUP = "machine-data"  # made by the installer


@dataclass(frozen=True, slots=True)
class Places:
    """The paths of the host that mosd works with."""

    run: Path = Path("/run/machineos")
    units: Path = Path("/run/systemd/system")
    proc: Path = Path("/proc")
    sys: Path = Path("/sys")
    resolv_conf: Path = Path("/run/systemd/resolve/resolv.conf")

    @property
    def handover(self) -> Path:
        """What the initrd wrote."""
        return self.run / "boot.json"

    @property
    def status(self) -> Path:
        """What mosctl reads."""
        return self.run / "status.json"


def build(
    *,
    notify_socket: str,
    log: Callable[[str], None],
    places: Places | None = None,
    clock: Clock | None = None,
) -> Daemon:
    """Return the daemon, ready to run. Raises: MissingError, DocumentError (the handover)."""
    where = places or Places()
    time = clock or SystemClock()
    try:
        data = read_bounded(where.handover, MAX_SIZE)
    except MissingError as error:
        raise MissingError(
            f"{where.handover} does not exist", hint="mosd runs only on a booted appliance"
        ) from error
    handover = parse_handover(data, name=str(where.handover))
    group = lvm.Group(DATA_GROUP, Path(handover.data_device))
    manager = Manager(
        handover,
        store=Path(handover.store),
        folders=Folders(run=where.run, units=where.units),
        volumes=VerityVolumes(),
        storage=LogicalVolumes(Path(handover.data), group, handover.volumes),
        units=Systemctl(),
        forward=Forwarding(proc=where.proc, sys=where.sys),
        log=log,
        apparmor=lxc.apparmor_profile(),
        resolv_conf=where.resolv_conf,
    )
    return Daemon(
        manager,
        handover,
        status_path=where.status,
        notify=lambda message: notify(notify_socket, message),
        log=log,
        clock=time,
    )
