"""systemd: what is told to it through ``systemctl``, and the readiness protocol (sd_notify(3))."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from machineos.core.run import perform
from machineos.errors import ToolError
from machineos.host.unit import systemctl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from machineos.host.unit.systemctl import UnitState


class Systemctl:
    """The service manager of the host, told what to do through ``systemctl``."""

    def reload(self) -> None:
        """Read the unit files again. Raises: ToolError."""
        perform(systemctl.RELOAD)

    def reset_failed(self, units: Sequence[str]) -> None:
        """Forget the failures of ``units``; one that systemd does not know is no error."""
        perform(systemctl.reset_failed(units))

    def start(self, units: Sequence[str]) -> None:
        """Queue the start of ``units`` and return. Raises: ToolError."""
        perform(systemctl.start(units))

    def run(self, unit: str) -> None:
        """Start ``unit`` and wait until it has started. Raises: ToolError (it failed)."""
        perform(systemctl.run(unit))

    def stop(self, units: Sequence[str]) -> None:
        """Stop ``units`` and wait until they have stopped. Raises: ToolError."""
        perform(systemctl.stop(units))

    def show(self, units: Sequence[str]) -> dict[str, UnitState]:
        """Return the state of ``units`` by name. Raises: ToolError."""
        return systemctl.parse_show(perform(systemctl.show(units)).text)


def notify(address: str, message: str) -> None:
    """Send ``message`` (``READY=1``) to the socket named by NOTIFY_SOCKET; "" sends nothing."""
    if not address:
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.sendto(message.encode(), name)
        except OSError as error:
            raise ToolError(f"{address}: cannot notify systemd: {error.strerror}") from error
