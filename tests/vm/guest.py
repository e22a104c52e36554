"""Typing at the debug console of a running appliance, and giving it files.

The debug variant has a root shell on the serial port. Scripts and files come from a web server of
the test, which the guest sees at 10.0.2.2: a serial port is no way to send a megabyte.

What the shell answers is read from the port itself, not from the log that QEMU keeps: QEMU writes a
character into its log once more each time the reader was too slow to take it.
"""

from __future__ import annotations

import itertools
import re
import shlex
import socket
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Protocol

from vm.appliance import CLOCK

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from machineos.vm.running import RunningMachine

PROMPT = "debug#"
# Waiting ends with what is waited for, or with the machine; these are for what hangs.
SHELL, BOOT = 300.0, 1200.0
PROBE = 5.0  # seconds for one of many attempts
_FETCH = (
    "import urllib.request as u;exec(compile(u.urlopen('{}',timeout=300).read(),'test','exec'))"
)


class FileServer(ThreadingHTTPServer):
    """Gives the guest what a test put into it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def put(self, data: bytes) -> str:
        """Offer ``data`` and return its address for the guest."""
        name = f"/{len(self.files)}"
        self.files[name] = data
        return f"http://10.0.2.2:{self.server_address[1]}{name}"


class _Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        data = self.server.files.get(self.path)
        self.send_response(404 if data is None else 200)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, *_: object) -> None:
        return


@dataclass(frozen=True)
class Done:
    """How a command in the guest ended, and what it wrote to both its outputs."""

    status: int
    output: str

    def __bool__(self) -> bool:
        return self.status == 0


class Terminal:
    """The serial port: everything that came since it was opened, and a way to type."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(str(path))
        self._changed = threading.Condition()
        self._data = bytearray()
        self._position = 0
        self._ended = False
        threading.Thread(target=self._read, daemon=True).start()

    def type(self, text: str) -> None:
        self._socket.sendall(text.encode())

    def wait(self, pattern: str, timeout: float) -> re.Match[str]:
        """Wait for ``pattern`` after what an earlier wait matched."""
        shape = re.compile(pattern, re.MULTILINE)
        deadline = CLOCK.monotonic() + timeout
        with self._changed:
            while True:
                # One character per byte, so that the position is the same in both.
                match = shape.search(self._data.decode("latin-1"), self._position)
                if match is not None:
                    self._position = match.end()
                    return match
                left = deadline - CLOCK.monotonic()
                end = self._data[-3000:].decode("latin-1")
                assert not self._ended, f"no {pattern!r}, the machine has ended:\n{end}"
                assert left > 0, f"no {pattern!r} within {timeout} s:\n{end}"
                self._changed.wait(left)

    def close(self) -> None:
        self._socket.close()

    def _read(self) -> None:
        while True:
            try:
                piece = self._socket.recv(1 << 16)
            except OSError:
                piece = b""
            with self._changed:
                self._data += piece
                self._ended = not piece
                self._changed.notify_all()
            if not piece:
                return


class Guest:
    """A running appliance of the debug variant."""

    def __init__(self, vm: RunningMachine, files: FileServer, port: int, console: Path) -> None:
        self.vm = vm
        self._console = console
        self.files = files
        self.port = port
        self._numbers = itertools.count(1)
        self._terminal: Terminal | None = None

    @property
    def terminal(self) -> Terminal:
        """The serial port, opened when it is first used."""
        if self._terminal is None:
            self._terminal = Terminal(self._console)
        return self._terminal

    def close(self) -> None:
        """Leave the serial port."""
        if self._terminal is not None:
            self._terminal.close()
            self._terminal = None

    def wake(self, timeout: float = BOOT) -> None:
        """Wait for the shell and keep the kernel's own messages off its terminal."""
        if self._terminal is None:
            self.vm.wait_console(re.escape(PROMPT), timeout)
        else:
            self.terminal.wait(re.escape(PROMPT), timeout)
        self.sh("stty -echo; dmesg -n 1")
        self.sh("true")

    def sh(self, command: str, timeout: float = SHELL) -> Done:
        """Run a line of shell as root. The marks are not in what the terminal echoes."""
        mark = f"{next(self._numbers)}-{id(self):x}"
        line = f"printf '\\n<%s<' {mark}; {command}; printf '>%s>%d>\\n' {mark} $?\n"
        assert len(line) < 4000, "too long for a terminal line: use python() or put()"
        self.terminal.type(line)
        shape = rf"(?s)<{mark}<(.*?)>{mark}>(\d+)>"
        found = self.terminal.wait(shape, timeout)
        text = found[1].replace("\r", "").replace(PROMPT, "")
        return Done(int(found[2]), text.strip())

    def reboot(self) -> None:
        """Have systemd restart the machine and wait until the initrd hands over again.

        Nothing is waited for in between: the shell may be gone before it says how that went.
        """
        self.terminal.type("systemctl reboot\n")
        self.terminal.wait("handing over to systemd", SHELL + BOOT)

    def must(self, command: str, timeout: float = SHELL) -> str:
        """Run a line of shell that has to succeed and return its output."""
        done = self.sh(command, timeout)
        assert done, f"{command}: {done.status}: {done.output}"
        return done.output

    def python(self, code: str, timeout: float = SHELL) -> str:
        """Run Python as root in the guest, with the appliance's own package, and return its
        output."""
        address = self.files.put(code.encode())
        done = self.sh(f"python3 -c {shlex.quote(_FETCH.format(address))}", timeout)
        assert done, done.output
        return done.output

    def put(self, data: bytes, path: str) -> None:
        """Write a file in the guest."""
        address = self.files.put(data)
        self.python(
            f"import urllib.request as u\nopen({path!r},'wb').write(u.urlopen({address!r}).read())"
        )

    def wait_until(self, command: str, timeout: float = BOOT) -> str:
        """Repeat a line of shell until it succeeds."""
        deadline = CLOCK.monotonic() + timeout
        while True:
            done = self.sh(command)
            if done:
                return done.output
            assert CLOCK.monotonic() < deadline, f"{command}: {done.status}: {done.output}"
            CLOCK.sleep(1)

    def wait_answer(self, timeout: float = BOOT) -> float:
        """Wait until the service answers through the forwarded port; return the seconds."""
        start = CLOCK.monotonic()
        while True:
            status = self.answer(PROBE)
            if status == 200:
                return CLOCK.monotonic() - start
            state = self.vm.state
            assert state.status == "running", (state, self.vm.console_text[-3000:])
            late = CLOCK.monotonic() - start > timeout
            assert not late, f"last answer {status}\n{self.diagnosis()}"
            CLOCK.sleep(0.5)

    def diagnosis(self) -> str:
        """Return what the guest knows about its services."""
        self.sh("stty -echo; dmesg -n 1")
        lines = "systemctl list-jobs --no-pager; mosctl status; journalctl -b --no-pager -o short"
        return self.sh(f"{lines} -u mosd -u 'machineos-*' | tail -60").output

    def answer(self, patience: float = SHELL) -> int:
        """Return the status of GET /v2/ through the forwarded port, 0 for none."""
        try:
            url = f"http://127.0.0.1:{self.port}/v2/"
            with urllib.request.urlopen(url, timeout=patience) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0


class Boot(Protocol):
    """Starts a machine of the bench for the length of a block."""

    def __call__(
        self, name: str, *, snapshot: str = "", no_reboot: bool = False
    ) -> AbstractContextManager[Guest]:
        """Start ``name``, from a ``snapshot`` if one is named."""
        ...
