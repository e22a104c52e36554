"""A provider in memory: machines that are nothing but a guest's behaviour.

Passes the contract of real ones (``tests/unit/vm/test_provider.py``). Time passes for a guest each
time that somebody looks at it, so nothing here waits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from machineos.errors import ConflictError, MachineError, MissingError
from machineos.vm.model import Machine, Port, Status
from machineos.vm.ports import Transport, check_free, forwards
from machineos.vm.provider import (
    AS_DEFINED,
    STOP_TIMEOUT,
    Console,
    HowStopped,
    Left,
    SecureBootKeys,
    Started,
    StartOptions,
    State,
)
from machineos.vm.qemu.snapshot import monitor_line, require_silence

ESCAPE = "\x1d"


class Guest:
    """What runs in a machine. ``end`` is empty while it runs, then why it has ended."""

    def __init__(self) -> None:
        self.written = ""
        self.end = ""
        self.ignores_the_button = False

    def boot(self) -> None:
        """Take the first steps."""

    def tick(self) -> None:
        """Take one more step."""

    def hear(self, text: str) -> None:
        """Read what was typed."""

    def press(self) -> None:
        """Notice the power button."""
        if not self.ignores_the_button:
            self.end = "the guest powered off"


class Echo(Guest):
    """The tiny guest (``tiny_guest``) again."""

    def boot(self) -> None:
        self.written += "tiny guest ready\r\n"

    def hear(self, text: str) -> None:
        for char in text:
            if self.end:
                return
            self.written += char
            if char == "q":
                self.end = "the guest powered off"
            elif char == "r":
                self.end = "the guest rebooted, which ends this run"
            elif char == "i":
                self.ignores_the_button = True


class Script(Guest):
    """Writes its lines one after the other and powers off; with ``hangs`` it does not."""

    def __init__(self, lines: Sequence[str], *, hangs: bool = False) -> None:
        super().__init__()
        self._lines = list(lines)
        self._hangs = hangs

    def tick(self) -> None:
        if self._lines:
            self.written += self._lines.pop(0) + "\r\n"
        elif not self._hangs:
            self.end = "the guest powered off"


@dataclass
class Kept:
    """One machine."""

    machine: Machine
    made: bool = False
    guest: Guest | None = None
    options: StartOptions = field(default_factory=StartOptions)
    status: Status = "initialized"
    reason: str = ""
    written: str = ""
    snapshots: dict[str, Guest] = field(default_factory=dict)
    taken: bool = False

    def look(self) -> None:
        """Notice what the guest did meanwhile."""
        if self.guest is None:
            return
        if not self.options.paused:
            self.guest.tick()
        self.written = self.guest.written
        if self.guest.end:
            again = "rebooted" in self.guest.end and not self.options.no_reboot
            if again:
                self.guest.end = ""
                self.guest.boot()
                self.written = self.guest.written
            else:
                self.end("stopped", self.guest.end)

    def end(self, status: Status, reason: str) -> None:
        """Have no guest any more."""
        self.guest, self.status, self.reason = None, status, reason


class MemoryConsole:
    """The serial port of one machine."""

    def __init__(self, name: str, kept: Kept) -> None:
        self._name = name
        self._kept = kept
        self._mine = False

    @property
    def log(self) -> Path:
        return Path("/memory") / self._name / "console.log"

    def text(self) -> str:
        return self._kept.written

    def send(self, text: str) -> None:
        self._guest().hear(text)
        self._mine = self._kept.taken = True
        self._kept.look()

    def attach(self, *, source: int, sink: int) -> Left:
        guest = self._guest()
        if self._kept.taken:
            raise ConflictError("the console is in use by another process")
        with (
            open(source, "rb", closefd=False) as typed,
            open(sink, "wb", buffering=0, closefd=False) as shown,
        ):
            before = len(guest.written)
            text, escape, _ = typed.read().decode().partition(ESCAPE)
            guest.hear(text)
            shown.write(guest.written[before:].encode())
        self._kept.look()
        if self._kept.guest is None:
            return "closed"
        return "escape" if escape else "input ended"

    def close(self) -> None:
        if self._mine:
            self._mine = self._kept.taken = False

    def _guest(self) -> Guest:
        if self._kept.guest is None:
            raise MachineError(f"machine {self._name}: no console: there is no guest")
        return self._kept.guest


class MemoryProvider:
    """``machineos.vm.provider.Provider`` without a host.

    ``guest`` makes what runs in a machine at each of its starts; ``taken`` are ports of the host
    that somebody else has. ``written`` has the variable stores that were asked for.
    """

    def __init__(
        self,
        guest: Callable[[Machine], Guest] = lambda _machine: Echo(),
        *,
        taken: Sequence[tuple[Transport, int]] = (),
    ) -> None:
        self._make = guest
        self._taken = taken
        self._machines: dict[str, Kept] = {}
        self.written: dict[Path, SecureBootKeys] = {}
        self.started: list[tuple[Machine, StartOptions]] = []

    def names(self) -> Sequence[str]:
        return sorted(self._machines)

    def define(self, machine: Machine) -> None:
        if machine.name in self._machines:
            self._machines[machine.name].machine = machine
        else:
            self._machines[machine.name] = Kept(machine)

    def machine(self, name: str) -> Machine:
        """Return a definition, for tests to look at."""
        return self._kept(name).machine

    def create(self, name: str) -> None:
        self._kept(name).made = True

    def start(self, name: str, options: StartOptions = AS_DEFINED) -> Started:
        kept = self._kept(name)
        kept.look()
        if kept.guest is not None:
            raise ConflictError(f"machine {name} is {kept.status} already")
        check_free(kept.machine, self.is_free)
        failed = kept.status == "failed"
        notices = (f"the last run of {name} failed: {kept.reason}",) if failed else ()
        self.create(name)
        self.started.append((kept.machine, options))
        kept.options, kept.status, kept.reason, kept.written = options, "running", "", ""
        if options.snapshot:
            kept.guest = copy.deepcopy(self._snapshot(name, options.snapshot, "loadvm"))
            kept.guest.written = ""
        else:
            kept.guest = self._make(kept.machine)
            if not options.paused:
                kept.guest.boot()
        kept.written = kept.guest.written
        return Started(kept.machine, notices)

    def stop(self, name: str, *, timeout: float = STOP_TIMEOUT) -> HowStopped:
        kept = self._kept(name)
        kept.look()
        if kept.guest is None:
            if kept.status != "initialized":
                kept.status = "stopped"
            return "not running"
        if timeout > 0 and not kept.options.paused:
            kept.guest.press()
            if kept.guest.end:
                kept.end("stopped", "the guest powered off")
                return "powered off"
        kept.end("stopped", "QEMU was stopped (quit)")
        return "quit"

    def pull_plug(self, name: str) -> None:
        self._kept(name).end("stopped", "the plug was pulled")

    def wait(self, name: str, timeout: float) -> bool:
        kept = self._kept(name)
        kept.look()
        return kept.guest is None

    def delete(self, name: str) -> None:
        kept = self._kept(name)
        kept.look()
        if kept.guest is not None:
            raise ConflictError(f"machine {name} is {kept.status}")
        del self._machines[name]

    def state(self, name: str, *, ask: bool = True) -> State:
        kept = self._kept(name)
        kept.look()
        reason = "prelaunch" if kept.guest and kept.options.paused and ask else kept.reason
        return State(kept.status, reason, 4711 if kept.guest else None)

    def console(self, name: str) -> Console:
        return MemoryConsole(name, self._kept(name))

    def save(self, name: str, tag: str) -> None:
        monitor_line("savevm", tag)
        kept = self._kept(name)
        if kept.guest is None:
            raise MachineError(f"machine {name}: there is no guest")
        kept.snapshots[tag] = copy.deepcopy(kept.guest)

    def load(self, name: str, tag: str) -> None:
        kept = self._kept(name)
        saved = copy.deepcopy(self._snapshot(name, tag, "loadvm"))
        saved.written = kept.written
        kept.guest = saved

    def ports(self, name: str) -> Sequence[Port]:
        return tuple(forwards(self._kept(name).machine))

    def is_free(self, protocol: Transport, port: int, address: str = "127.0.0.1") -> bool:
        return (protocol, port) not in self._taken

    def disks(self, name: str) -> Sequence[Path]:
        disks = self._kept(name).machine.config.disks
        return tuple(Path("/memory") / name / disk.file for disk in disks)

    def write_variables(self, output: Path, keys: SecureBootKeys) -> None:
        self.written[output] = keys

    def _kept(self, name: str) -> Kept:
        if name not in self._machines:
            raise MissingError(f"there is no machine {name}")
        return self._machines[name]

    def _snapshot(self, name: str, tag: str, command: str) -> Guest:
        line = monitor_line("loadvm", tag)
        kept = self._kept(name)
        found = kept.snapshots.get(tag)
        if found is None:
            require_silence(line, "Error: there is no such snapshot")
        assert found is not None, command
        return found
