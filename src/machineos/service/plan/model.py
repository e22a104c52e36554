"""A service as it is to be run: every question answered, nothing left to look up. Pure.

Invariant: all paths inside are plain and absolute, all ids fit the range of the service.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from machineos.core.idrange import IdRange
    from machineos.core.serviceid import ServiceId
    from machineos.document.model.image import User
    from machineos.service.plan.network import Attachment

MAX_TEXT = 4 << 20  # of a file that we wrote


class Folders(msgspec.Struct, frozen=True):
    """Where things are kept: ``run`` is ours alone, ``units`` belongs to systemd.

    ``data`` has a folder for each volume; ``mapper`` shows the devices of persistent ones. ``log``
    is where the machine's own log is kept, ``journald`` where journald says what it has done.
    """

    run: Path
    units: Path
    data: Path
    mapper: Path
    log: Path = Path("/var/log")
    journald: Path = Path("/run/systemd/journal")

    @property
    def images(self) -> Path:
        """Image file systems, one per layer digest, owners as in the image; for root only."""
        return self.run / "images"

    @property
    def roots(self) -> Path:
        """Roots of containers, one per service, owners shifted."""
        return self.run / "roots"

    @property
    def lxc(self) -> Path:
        """LXC's files, one folder per service."""
        return self.run / "lxc"

    @property
    def journals(self) -> Path:
        """The files of the log that outlive a boot: journald writes them only if this is there."""
        return self.log / "journal"

    @property
    def flushed(self) -> Path:
        """There as soon as journald writes to ``journals``."""
        return self.journald / "flushed"

    @property
    def leases(self) -> Path:
        """Which service has which address."""
        return self.run / "leases.json"


class Volume(msgspec.Struct, frozen=True):
    """The folder ``source`` of the host, writable at ``dest`` inside."""

    source: Path
    dest: str


class ServiceSpec(msgspec.Struct, frozen=True):
    """One container. ``ids`` is None for a service without a user namespace (host ids).

    ``scratch`` are the folders of SCRATCH that the image has; ``resolv_conf`` a file of the host to
    show as /etc/resolv.conf, or None.
    """

    id: ServiceId
    version: str
    rootfs: Path
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    user: User
    folder: str
    stop_signal: str
    ids: IdRange | None
    network: Attachment
    volumes: tuple[Volume, ...] = ()
    scratch: tuple[str, ...] = ()
    resolv_conf: Path | None = None
    apparmor: str = "unconfined"
