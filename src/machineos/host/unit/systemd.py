"""systemd: unit files, ``systemctl``, and the readiness protocol.

Owns the quoting of unit files (systemd.syntax(7), systemd.service(5) "Command lines"): every word
is written in double quotes with C escapes, percent signs doubled, and the command has the prefix
``:``, so that systemd substitutes nothing in words that came from an image.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.core.run import run
from machineos.errors import ToolError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_TIMEOUT = 60.0
# A service may use all of its stop timeout.
_STOP_TIMEOUT = 120.0
_PROPERTIES = ("Id", "LoadState", "ActiveState", "SubState", "Result", "NRestarts")
_EXIT = ("NeedDaemonReload", "MainPID", "ExecMainStatus", "ExecMainCode")
# systemd refuses lines of 1 MiB; no honest command comes near.
MAX_COMMAND = 256 << 10
_ESCAPES = {"\\": "\\\\", '"': '\\"', "%": "%%", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


@dataclass(frozen=True, slots=True)
class UnitState:
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

    @property
    def running(self) -> bool:
        """Whether it runs now."""
        return self.active == "active"

    @property
    def wanted(self) -> bool:
        """Whether systemd runs it, or is about to: starting it again would do nothing."""
        return self.active in {"active", "activating", "reloading"}


def quote(word: str) -> str:
    """Return ``word`` as one word of a command line. Raises: ToolError (zero byte, not UTF-8)."""
    try:
        word.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ToolError(f"{word[:80]!r} is not text that a unit file can hold") from error
    if "\0" in word:
        raise ToolError(f"{word[:80]!r} holds a zero byte")
    return '"' + "".join(_escape(char) for char in word) + '"'


def exec_line(argv: Sequence[str]) -> str:
    """Return the value of ExecStart= for exactly this argument list. Raises: ToolError."""
    program, *rest = argv
    line = " ".join([f":{program}", *(quote(word) for word in rest)])
    if len(line.encode()) > MAX_COMMAND:
        raise ToolError(f"{program}: its command line is longer than {MAX_COMMAND} bytes")
    return line


def argv_show(units: Sequence[str]) -> list[str]:
    """Return the command that shows the state of ``units``."""
    return ["systemctl", "show", f"--property={','.join(_PROPERTIES + _EXIT)}", "--", *units]


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


class Systemctl:
    """The service manager of the host, told what to do through ``systemctl``."""

    def reload(self) -> None:
        """Read the unit files again. Raises: ToolError."""
        run(["systemctl", "daemon-reload"], timeout=_TIMEOUT)

    def reset_failed(self, units: Sequence[str]) -> None:
        """Forget the failures of ``units``: one over its start limit would refuse for good."""
        run(["systemctl", "reset-failed", "--", *units], timeout=_TIMEOUT, check=False)

    def start(self, units: Sequence[str]) -> None:
        """Queue the start of ``units`` and return. Raises: ToolError."""
        run(["systemctl", "start", "--no-block", "--", *units], timeout=_TIMEOUT)

    def stop(self, units: Sequence[str]) -> None:
        """Stop ``units`` and wait until they have stopped. Raises: ToolError."""
        run(["systemctl", "stop", "--", *units], timeout=_STOP_TIMEOUT)

    def show(self, units: Sequence[str]) -> dict[str, UnitState]:
        """Return the state of ``units``. Raises: ToolError."""
        return parse_show(run(argv_show(units), timeout=_TIMEOUT).text)


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


def unit_files(folder: Path, prefix: str) -> dict[str, Path]:
    """Return our unit files in ``folder`` by unit name."""
    return {path.name: path for path in sorted(folder.glob(f"{prefix}*.service"))}


def _escape(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    return f"\\x{ord(char):02x}" if ord(char) < 0x20 or ord(char) == 0x7F else char
