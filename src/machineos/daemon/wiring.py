"""Builds every object of mosd once, from what ``start`` read; only here is known which is which."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from machineos.core.clock import SystemClock
from machineos.daemon.loop import Loop
from machineos.daemon.mosd import Daemon
from machineos.host.unit import systemctl
from machineos.host.unit.apparmor import container_profile
from machineos.host.unit.systemd import Systemctl, notify
from machineos.service.act.linux import LinuxHost
from machineos.service.act.manager import Manager, performing
from machineos.service.act.verity import VerityLayers
from machineos.service.plan.facts import Policy
from machineos.service.plan.model import Folders

if TYPE_CHECKING:
    from collections.abc import Callable

    from machineos.core.clock import Clock
    from machineos.daemon.start import Start


def build(
    start: Start,
    *,
    notify_socket: str,
    log: Callable[[str], None],
    clock: Clock | None = None,
) -> Daemon:
    """Return the daemon, ready to run."""
    where, handover = start.places, start.handover
    time = clock or SystemClock()
    host = LinuxHost(
        Path(handover.store),
        layers=VerityLayers(),
        volumes=start.storage,
        units=Systemctl(),
        log=log,
    )
    policy = Policy(
        Folders(where.run, where.units, data=Path(handover.data), mapper=start.storage.folder),
        apparmor=container_profile(),
        resolv_conf=where.resolv_conf,
    )
    return Daemon(
        Manager(handover, policy, performing(host)),
        handover,
        loop=Loop(time),
        show=systemctl.show,
        status_path=where.status,
        notify=lambda message: notify(notify_socket, message),
        log=log,
        clock=time,
    )
