"""What is asked of systemd through ``systemctl``, and how its answers are read. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from machineos.core.command import Command
from machineos.errors import ToolError

if TYPE_CHECKING:
    from collections.abc import Sequence

_TIMEOUT = 60.0
# A service may use all of its stop timeout.
_STOP_TIMEOUT = 120.0
RELOAD = Command(("systemctl", "daemon-reload"), _TIMEOUT)
_PROPERTIES = ("Id", "LoadState", "ActiveState", "SubState", "Result", "NRestarts")
_EXIT = ("NeedDaemonReload", "MainPID", "ExecMainStatus", "ExecMainCode")


class UnitState(msgspec.Struct, frozen=True):
    """What systemd says about a unit; ``main_pid`` is 0 when nothing runs, ``stale`` when the file
    on disk is newer than what systemd has read."""

    name: str
    load: str
    active: str
    sub: str
    result: str
    restarts: int
    main_pid: int
    exit_code: str
    exit_status: int
    stale: bool = False


def reset_failed(units: Sequence[str]) -> Command:
    """Return the call that forgets the failures of ``units``: one over its start limit would refuse
    for good. One that systemd does not know is no error."""
    return Command(("systemctl", "reset-failed", "--", *units), _TIMEOUT, success=None)


def start(units: Sequence[str]) -> Command:
    """Return the call that queues the start of ``units``."""
    return Command(("systemctl", "start", "--no-block", "--", *units), _TIMEOUT)


def run(unit: str) -> Command:
    """Return the call that starts ``unit`` and ends when it has started, or failed."""
    return Command(("systemctl", "start", "--", unit), _STOP_TIMEOUT)


def stop(units: Sequence[str]) -> Command:
    """Return the call that stops ``units`` and ends when they have stopped."""
    return Command(("systemctl", "stop", "--", *units), _STOP_TIMEOUT)


def show(units: Sequence[str]) -> Command:
    """Return the call that shows the state of ``units``; ``parse_show`` reads what it writes."""
    wanted = f"--property={','.join(_PROPERTIES + _EXIT)}"
    return Command(("systemctl", "show", wanted, "--", *units), _TIMEOUT)


def parse_show(text: str) -> dict[str, UnitState]:
    """Parse ``systemctl show`` of several units, by unit name. Raises: ToolError."""
    states = {}
    for block in text.strip().split("\n\n"):
        fields = dict(line.partition("=")[::2] for line in block.splitlines() if "=" in line)
        if not fields:
            continue
        try:
            state = UnitState(
                name=fields["Id"],
                load=fields["LoadState"],
                active=fields["ActiveState"],
                sub=fields["SubState"],
                result=fields.get("Result", ""),
                restarts=int(fields.get("NRestarts") or 0),
                main_pid=int(fields.get("MainPID") or 0),
                exit_code=fields.get("ExecMainCode", ""),
                exit_status=int(fields.get("ExecMainStatus") or 0),
                stale=fields.get("NeedDaemonReload") == "yes",
            )
        except (KeyError, ValueError) as error:
            raise ToolError(f"systemctl show: cannot read {block[:200]!r}") from error
        states[state.name] = state
    return states
