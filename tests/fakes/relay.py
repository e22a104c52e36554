"""A line between a client and a server on 127.0.0.1 that can be cut."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator


class Relay:
    """Passes on what comes; a connection is cut once, after so many bytes."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._cut: int | None = None
        self._lock = threading.Lock()
        self.cuts = 0
        self._ends: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def host(self) -> str:
        """``127.0.0.1:port``."""
        return f"127.0.0.1:{self._socket.getsockname()[1]}"

    def cut_after(self, size: int) -> None:
        """Cut the next connection that has passed on so many bytes from now on."""
        with self._lock:
            self._cut = size

    def close(self) -> None:
        """End all connections, and take no more."""
        for end in (self._socket, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self._socket.close()

    def _accept(self) -> None:
        lines = []
        with suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                lines.append(threading.Thread(target=self._serve, args=(client,), daemon=True))
                lines[-1].start()
        for line in lines:
            line.join(PATIENCE)

    def _serve(self, client: socket.socket) -> None:
        with (
            client,
            socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE) as server,
        ):
            self._ends += [client, server]
            back = threading.Thread(target=self._pass, args=(server, client), daemon=True)
            back.start()
            self._pass(client, server)
            back.join(PATIENCE)

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self._is_cut(len(data)):
                    break
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _is_cut(self, size: int) -> bool:
        with self._lock:
            if self._cut is None:
                return False
            self._cut -= size
            if self._cut > 0:
                return False
            self._cut = None
            self.cuts += 1
            return True


@contextmanager
def relay(host: str) -> Iterator[Relay]:
    """Run a line to the server at ``127.0.0.1:port`` for the length of the block."""
    line = Relay(int(host.rpartition(":")[2]))
    try:
        yield line
    finally:
        line.close()
