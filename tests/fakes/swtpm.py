"""A real software TPM for one test module, and what may sit between it and us.

swtpm is killed by its pid; ``power_cycle`` is a reset of the chip: what is in its NV storage stays,
sessions, loaded keys and PCRs go. It serves one connection at a time; a second one waits.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from machineos.core.clock import SystemClock
from machineos.core.run import run
from machineos.host.tpm.commands import Tpm
from machineos.host.tpm.transport import SocketTransport, Transport
from machineos.host.tpm.wire import Hierarchy
from waiting import wait_for

_CMD_INIT = 2
_BRIDGE = """
import socket, struct, sys
tpm = socket.socket(socket.AF_UNIX)
tpm.connect(sys.argv[1])
def whole(read):
    head = b""
    while len(head) < 10:
        piece = read(10 - len(head))
        if not piece:
            sys.exit()
        head += piece
    size = struct.unpack(">I", head[2:6])[0]
    while len(head) < size:
        head += read(size - len(head))
    return head
while True:
    tpm.sendall(whole(sys.stdin.buffer.read))
    sys.stdout.buffer.write(whole(tpm.recv))
    sys.stdout.buffer.flush()
"""


class SoftwareTpm:
    """One running swtpm."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "d"
        self._control = folder / "c"
        self._bridge = folder / "bridge.py"
        self._bridge.write_text(_BRIDGE)

    def open(self, between: Callable[[Transport], Transport] = lambda wire: wire) -> Tpm:
        """Connect, with something between us and the TPM if wanted."""
        wire = between(SocketTransport(self.data))
        return Tpm(wire, clock=SystemClock(), random=os.urandom)

    def power_cycle(self) -> None:
        """Reset the chip and start it, as firmware does."""
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(self._control))
            control.sendall(struct.pack(">II", _CMD_INIT, 0))
            assert control.recv(4) == bytes(4)
        with self.open() as tpm:
            tpm.startup()

    def wipe(self) -> None:
        """Make it as new."""
        self.power_cycle()
        with self.open() as tpm:
            tpm.clear(Hierarchy.PLATFORM)

    def tool(self, *argv: str | Path) -> str:
        """Run one of tpm2-tools on it."""
        tcti = f"cmd:{sys.executable} {self._bridge} {self.data}"
        return run([*argv, "-T", tcti], timeout=60).text


@contextmanager
def software_tpm(folder: Path, state: Path | None = None) -> Iterator[SoftwareTpm]:
    """Run swtpm with its sockets in ``folder``, and a new state there too, unless it is given."""
    if state is None:
        state = folder / "state"
        state.mkdir()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "swtpm", "socket", "--tpm2",
                "--tpmstate", f"dir={state}",
                "--server", f"type=unixio,path={folder / 'd'}",
                "--ctrl", f"type=unixio,path={folder / 'c'}",
                "--flags", "not-need-init,startup-clear",
            ],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        wait_for(
            lambda: (folder / "d").exists() and (folder / "c").exists(),
            during=process,
            what=f"swtpm listens; see {folder / 'log'}",
        )
        yield SoftwareTpm(folder)
    finally:
        process.kill()
        process.wait()


class Recorder:
    """Passes everything on and keeps what it saw: a probe on the bus."""

    def __init__(self, wire: Transport) -> None:
        self.wire = wire
        self.commands: list[bytes] = []
        self.answers: list[bytes] = []

    def transmit(self, command: bytes) -> bytes:
        self.commands.append(command)
        answer = self.wire.transmit(command)
        self.answers.append(answer)
        return answer

    def close(self) -> None:
        self.wire.close()

    @property
    def everything(self) -> bytes:
        return b"|".join(self.commands + self.answers)


class Editor(Recorder):
    """Changes commands and answers on their way: an interposer."""

    def __init__(
        self,
        wire: Transport,
        *,
        command: Callable[[bytes], bytes] = lambda data: data,
        answer: Callable[[bytes, bytes], bytes] = lambda command, data: data,
    ) -> None:
        super().__init__(wire)
        self._command = command
        self._answer = answer

    def transmit(self, command: bytes) -> bytes:
        return self._answer(command, super().transmit(self._command(command)))


class PowerCutError(Exception):
    """The power went."""


class Cut(Recorder):
    """The power goes when command ``at`` has been executed; nobody hears the answer."""

    def __init__(self, wire: Transport, at: int) -> None:
        super().__init__(wire)
        self._at = at

    def transmit(self, command: bytes) -> bytes:
        answer = super().transmit(command)
        if len(self.commands) > self._at:
            raise PowerCutError
        return answer


def code_of(command: bytes) -> int:
    """Return which command it is."""
    return int.from_bytes(command[6:10], "big")
