"""A service as it is to be run: every question answered, nothing left to look up.

Invariant: all paths inside are plain and absolute, all ids fit the range of the service.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.host.kernel.idmap import IdRange
    from machineos.service.plan.image import User
    from machineos.service.plan.network import Attachment

PREFIX = "machineos-"
# Folders of a container that are writable and forgotten at its end.
SCRATCH = ("/tmp", "/run", "/var/tmp")  # noqa: S108 (paths inside the container)
# Folders that LXC mounts over: without them the image cannot run.
NEEDED = ("/proc", "/sys", "/dev")


@dataclass(frozen=True, slots=True)
class Volume:
    """The folder ``source`` of the host, writable at ``dest`` inside."""

    source: Path
    dest: str


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One container. ``ids`` is None for a service without a user namespace (host ids).

    ``scratch`` are the folders of SCRATCH that the image has; ``resolv_conf`` a file of the host to
    show as /etc/resolv.conf, or None.
    """

    name: str
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

    @property
    def unit(self) -> str:
        """The name of its systemd unit."""
        return unit_name(self.name)


def unit_name(service: str) -> str:
    """Return the name of a service's systemd unit."""
    return f"{PREFIX}{service}.service"


NetworkKind = Literal["host", "none", "simple"]
