"""Builds every object of mosd once, from what ``start`` read; only here is known which is which."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from machineos.core.clock import SystemClock
from machineos.daemon.adapters import Forwarding, VerityVolumes
from machineos.daemon.loop import Daemon
from machineos.host.unit import lxc
from machineos.host.unit.systemd import Systemctl, notify
from machineos.service.act.manager import Manager
from machineos.service.act.surroundings import Folders

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
    manager = Manager(
        handover,
        store=Path(handover.store),
        folders=Folders(run=where.run, units=where.units),
        volumes=VerityVolumes(),
        storage=start.storage,
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
        clock=clock or SystemClock(),
    )
