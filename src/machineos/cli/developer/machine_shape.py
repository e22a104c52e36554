"""Machines as JSON, as tables and in words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from machineos.vm.model import Port
    from machineos.vm.paths import MachinePaths
    from machineos.vm.provider import HowStopped, State

LIST_COLUMNS = ("NAME", "STATUS", "DESCRIPTION")


@dataclass(frozen=True, slots=True)
class Row:
    """One machine in the list."""

    name: str
    status: str
    description: str
    reason: str

    def json(self) -> dict[str, str]:
        """Return it for ``--json``."""
        return asdict(self)

    def cells(self) -> tuple[str, ...]:
        """Return it for the table."""
        return (self.name, self.status, self.description)


def forward_json(ports: Iterable[Port]) -> list[dict[str, str]]:
    """Return the host ports that lead into a machine."""
    return [
        {
            "protocol": port.protocol,
            "host": f"{port.host.address or '127.0.0.1'}:{port.host.port}",
            "guest": f"{port.guest.address}:{port.guest.port}".removeprefix(":"),
        }
        for port in ports
    ]


def published_json(ports: Iterable[Port]) -> list[dict[str, object]]:
    """Return the ports that ``trust launch`` chose, as numbers."""
    return [
        {"protocol": port.protocol, "host": port.host.port, "guest": port.guest.port}
        for port in ports
    ]


def forward_lines(ports: Iterable[Port]) -> list[str]:
    """Return the same in a line each."""
    return [f"{one['protocol']} {one['host']} -> {one['guest']}" for one in forward_json(ports)]


def state_json(state: State, paths: MachinePaths, ports: Iterable[Port]) -> dict[str, object]:
    """Return what a machine is doing, and where it is."""
    return {
        "status": state.status,
        "reason": state.reason,
        "accelerator": state.accelerator,
        "pid": state.pid,
        "forwards": forward_json(ports),
        "console": str(paths.console),
        "console-log": str(paths.console_log),
        "state-folder": str(paths.state),
    }


def state_lines(state: State, ports: Sequence[Port]) -> list[str]:
    """Return the same as lines that follow a definition: all but the first are comments of it."""
    lines = [f"status: {state.status}"]
    if state.reason:
        lines.append(f"# {state.reason}")
    lines += [
        f"# {one['protocol']} {one['host']} of this host is port {one['guest']} of the machine"
        for one in forward_json(ports)
    ]
    return lines


def stop_line(name: str, how: HowStopped, *, force: bool, timeout: float) -> str:
    """Return how a machine was stopped."""
    words = {
        "not running": "was not running",
        "powered off": "has powered off",
        "quit": "was ended" if force else f"did not power off within {timeout:g} s and was ended",
        "killed": "did not react and was killed",
    }
    return f"machine {name} {words[how]}"
