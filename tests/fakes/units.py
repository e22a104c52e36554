"""systemd without systemd: unit files read and run by the test itself, for real programs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from machineos.core import run
from machineos.errors import ToolError
from machineos.host.unit.systemctl import UnitState
from waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence

# What systemd 257 does for MemoryDenyWriteExecute=, without a filter: PR_SET_MDWE.
_LOCK = """\
import ctypes, os, sys
assert ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""
_GRACE = 0.3  # a shell as process 1 ignores the signal to end


def decode_command(line: str) -> list[str]:
    """Read a command line as systemd.service(5) and systemd.syntax(7) say, for the form we write:
    a bare program with the prefix ``:``, then words in double quotes with C escapes."""
    simple = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"'}
    digits = {"x": 2, "u": 4, "U": 8}
    program, _, rest = line.partition(" ")
    assert program.startswith(":/")
    words, i = [program[1:]], 0
    while i < len(rest):
        assert rest[i] == '"'
        i += 1
        word = ""
        while rest[i] != '"':
            if rest[i] == "\\":
                code = rest[i + 1]
                if code in digits:
                    end = i + 2 + digits[code]
                    word += chr(int(rest[i + 2 : end], 16))
                    i = end
                else:
                    word += simple[code]
                    i += 2
            elif rest[i] == "%":
                assert rest[i + 1] == "%"
                word += "%"
                i += 2
            else:
                assert rest[i] != "\n"
                word += rest[i]
                i += 1
        words.append(word)
        i += 1
        assert rest[i : i + 1] in {"", " "}
        i += 1
    return words


class ProcessUnits:
    """``service.act.linux.Units`` with the units' commands as child processes.

    ``prefix`` is put before each command. What a unit has read, it keeps until it is read again or
    has nothing to do, as systemd does.
    """

    def __init__(self, folder: Path, log: Path, prefix: Sequence[str] = ()) -> None:
        self.folder = folder
        self.log = log
        self.prefix = list(prefix)
        self.loaded: dict[str, str] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.started: list[str] = []

    def reload(self) -> None:
        """Read the files of the units that are known again."""
        for unit in tuple(self.loaded):
            self.loaded.pop(unit)
            self._load(unit)

    def reset_failed(self, units: Sequence[str]) -> None:
        """Forget failures."""
        for unit in units:
            if self._status(unit):
                self.processes.pop(unit)

    def start(self, units: Sequence[str]) -> None:
        """Start what does not run."""
        for unit in units:
            text = self._load(unit)
            if not text:
                raise ToolError(f"Failed to start {unit}: Unit {unit} not found.")
            if self._runs(unit):
                continue
            settings = dict(line.partition("=")[::2] for line in text.split("\n") if "=" in line)
            argv = decode_command(settings["ExecStart"])
            env = {"PATH": settings["Environment"].removeprefix("PATH=")}
            if settings.get("MemoryDenyWriteExecute") == "yes":
                argv = [sys.executable, "-IS", "-c", _LOCK, *argv]
            command = ["/usr/sbin/ip", *self.prefix[1:], *argv] if self.prefix else argv
            self.started.append(unit)
            with (self.log / unit).open("ab") as log:
                self.processes[unit] = run.spawn(command, log=log.fileno(), env=env)

    def run(self, unit: str) -> None:
        """Start it; nothing here takes its time."""
        self.start((unit,))

    def stop(self, units: Sequence[str]) -> None:
        """Stop: a signal, and then the end of all, as KillMode=mixed does."""
        for unit in units:
            if not self._load(unit):
                raise ToolError(f"Failed to stop {unit}: Unit {unit} not loaded.")
            if self._runs(unit):
                _end(self.processes.pop(unit))
            elif not self._status(unit):
                self.processes.pop(unit, None)

    def show(self, units: Sequence[str]) -> dict[str, UnitState]:
        """Return the state of each unit."""
        return {unit: self._show(unit) for unit in units}

    def _show(self, unit: str) -> UnitState:
        text = self._load(unit)
        status = self._status(unit)
        active = "active" if self._runs(unit) else ("failed" if status else "inactive")
        return UnitState(
            name=unit,
            load="loaded" if text else "not-found",
            active=active,
            sub="running" if active == "active" else "dead",
            result="exit-code" if status else "success",
            restarts=0,
            main_pid=self.processes[unit].pid if active == "active" else 0,
            exit_code="1",
            exit_status=status,
            stale=bool(text) and self._text(unit) != text,
        )

    def _runs(self, unit: str) -> bool:
        process = self.processes.get(unit)
        return process is not None and process.poll() is None

    def _status(self, unit: str) -> int:
        process = self.processes.get(unit)
        return (process.poll() or 0) if process is not None else 0

    def _load(self, unit: str) -> str:
        """Return what is known of the unit: read at first use, and when nothing runs of it."""
        if unit not in self.loaded or not (self._runs(unit) or self._status(unit)):
            self.loaded[unit] = self._text(unit)
        return self.loaded[unit]

    def _text(self, unit: str) -> str:
        path = self.folder / unit
        return path.read_text() if path.exists() else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    process.terminate()
    try:
        process.wait(timeout=_GRACE)
    except subprocess.TimeoutExpired:
        for child in children.read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        wait_for(lambda: process.poll() is not None, what="the unit has stopped")
