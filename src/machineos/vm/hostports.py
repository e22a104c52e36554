"""Whether the host has a port free: found out by binding it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from machineos.vm.ports import LOOPBACK

if TYPE_CHECKING:
    from machineos.vm.ports import Transport


def is_free(protocol: Transport, port: int, address: str = LOOPBACK) -> bool:
    """Whether the host could bind this port now."""
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as probe:
        if protocol == "tcp":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
