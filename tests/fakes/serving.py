"""A server of a test, in a thread, for the length of a block."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator
    from socket import socket


class Stoppable(Protocol):
    """An HTTP server whose answers in progress end when ``stopped`` is set."""

    socket: socket
    stopped: threading.Event

    def serve_forever(self, poll_interval: float = 0.5) -> None: ...

    def shutdown(self) -> None: ...

    def server_close(self) -> None: ...


S = TypeVar("S", bound=Stoppable)


@contextmanager
def served(server: S, tls: ssl.SSLContext | None) -> Iterator[S]:
    """Run ``server``, with TLS where there is a context for it."""
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()
