"""A proxy on 127.0.0.1: whole addresses of ``http://``, ``CONNECT`` for the rest.

``login`` is what it wants to hear (``user:password``), empty for nothing; ``names`` says where the
hosts are that only it knows.
"""

from __future__ import annotations

import base64
import http.client
import socket
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fakes.serving import served
from waiting import PATIENCE

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

_HOP = frozenset({"proxy-authorization", "proxy-connection", "connection", "host", "accept"})


class FakeProxy(ThreadingHTTPServer):
    """The server; ``seen`` are the requests as they came in, ``headers`` what the last one had."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.login = ""
        self.status = 0  # of every answer instead
        self.drips = False
        self.names: dict[str, tuple[str, int]] = {}
        self.seen: list[str] = []
        self.headers: dict[str, str] = {}
        self.stopped = threading.Event()

    @property
    def host(self) -> str:
        """``127.0.0.1:port``."""
        return f"127.0.0.1:{self.server_address[1]}"

    def place(self, host: str, port: int) -> tuple[str, int]:
        """Return where a host is."""
        return self.names.get(host, (host, port))

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news here."""


@contextmanager
def fake_proxy(tls: ssl.SSLContext | None = None) -> Iterator[FakeProxy]:
    """Run a proxy for the length of the block."""
    server = FakeProxy()
    with served(server, tls):
        yield server


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FakeProxy

    def log_message(self, *_: object) -> None:
        pass

    def _let_through(self) -> bool:
        server = self.server
        server.seen.append(f"{self.command} {self.path}")
        server.headers = dict(self.headers)
        if server.drips:
            self._drip()
            return False
        wanted = f"Basic {base64.b64encode(server.login.encode()).decode()}"
        refused = server.login and self.headers.get("Proxy-Authorization") != wanted
        status = server.status or (407 if refused else 0)
        if status:
            self.send_response(status)
            self.send_header("Proxy-Authenticate", 'Basic realm="here"')
            self.send_header("Content-Length", "0")
            self.end_headers()
        return not status

    def _drip(self) -> None:
        self.close_connection = True
        for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 10_000:
            if self.server.stopped.wait(0.02):
                return
            self.wfile.write(bytes([byte]))

    def do_CONNECT(self) -> None:
        if not self._let_through():
            return
        host, _, port = self.path.rpartition(":")
        self.close_connection = True
        with socket.create_connection(
            self.server.place(host.strip("[]"), int(port)), timeout=PATIENCE
        ) as there:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_pump, args=(there, self.connection), daemon=True)
            back.start()
            _pump(self.connection, there)
            back.join(PATIENCE)

    def _forward(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if not self._let_through():
            self.rfile.read(length)
            return
        parts = urlsplit(self.path)
        host, port = self.server.place(parts.hostname or "", parts.port or 80)
        there = http.client.HTTPConnection(host, port, timeout=PATIENCE)
        sent = {key: value for key, value in self.headers.items() if key.lower() not in _HOP}
        sent["Host"] = parts.netloc
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        there.request(self.command, path, body=self.rfile.read(length), headers=sent)
        answer = there.getresponse()
        body = answer.read()
        self.send_response(answer.status)
        for key, value in answer.getheaders():
            if key.lower() not in {"connection", "transfer-encoding", "content-length"}:
                self.send_header(key, value)
        length = int(answer.headers.get("Content-Length") or len(body))
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)
        there.close()

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _forward  # noqa: N815


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
