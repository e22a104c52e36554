"""Connections that are kept and used again, straight to a server or through the user's proxy.

Owns how they are opened: limits of time, TLS, ``CONNECT``. Invariant: status line and headers of an
answer come within their time as a whole, those of a proxy too; who we are is said to a proxy on the
connection to it alone.
"""

from __future__ import annotations

import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from machineos.oci.registry.alarms import ALARMS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from ssl import SSLContext

    from urllib3.response import BaseHTTPResponse, HTTPResponse

    from machineos.oci.registry.certificates import Certificates
    from machineos.oci.registry.proxy import Proxies, Proxy
    from machineos.oci.registry.wire import Limits


class Pools:
    """The connections of one client. Safe for use by several threads.

    Without ``tls`` the CAs are read only if a redirect leads to HTTPS: that takes 40 ms.
    """

    def __init__(
        self, limits: Limits, certificates: Certificates, proxies: Proxies, *, tls: bool
    ) -> None:
        self._limits = limits
        self._proxies = proxies
        self._context = certificates.context() if tls or certificates.ca else None
        self._managers: dict[Proxy | None, urllib3.PoolManager] = {None: self._manager(None)}

    def __enter__(self) -> Pools:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def proxy_for(self, url: str) -> Proxy | None:
        """Return the proxy that ``url`` is asked for through. Raises: UsageError."""
        return self._proxies.proxy_for(url)

    def request(
        self, method: str, url: str, *, headers: Mapping[str, str], body: Iterable[bytes] | None
    ) -> BaseHTTPResponse:
        """Send one request, once; the body of the answer is unread.

        Raises: UsageError (the proxy), and what urllib3 raises.
        """
        proxy = self.proxy_for(url)
        manager = self._managers.get(proxy)
        if manager is None:
            manager = self._managers.setdefault(proxy, self._manager(proxy))
        return manager.request(
            method,
            url,
            headers=headers,
            body=body,
            preload_content=False,
            decode_content=False,
            redirect=False,
            retries=False,
        )

    def clear(self) -> None:
        """Close all connections."""
        for manager in tuple(self._managers.values()):
            manager.clear()

    def _manager(self, proxy: Proxy | None) -> urllib3.PoolManager:
        limits = self._limits
        manager = _unlimited(proxy, limits, self._context)

        class Plain(HTTPConnection):
            def getresponse(self) -> HTTPResponse:  # type: ignore[override]
                with _deadline(self.sock, limits.answer_seconds):
                    return super().getresponse()

        class Secure(HTTPSConnection):
            def getresponse(self) -> HTTPResponse:  # type: ignore[override]
                with _deadline(self.sock, limits.answer_seconds):
                    return super().getresponse()

            def _tunnel(self) -> None:
                with _deadline(self.sock, limits.answer_seconds):
                    super()._tunnel()

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = Secure

        manager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
        return manager


def _unlimited(
    proxy: Proxy | None, limits: Limits, context: SSLContext | None
) -> urllib3.PoolManager:
    """Return connections that have a time limit for each read, and none for an answer."""
    timeout = urllib3.Timeout(connect=limits.connect_seconds, read=limits.read_seconds)
    if proxy is None:
        return urllib3.PoolManager(
            num_pools=8, maxsize=16, timeout=timeout, ssl_context=context, cert_reqs="CERT_REQUIRED"
        )
    return urllib3.ProxyManager(
        proxy.url,
        num_pools=8,
        maxsize=16,
        proxy_headers=urllib3.make_headers(proxy_basic_auth=proxy.login or None),
        proxy_ssl_context=context,
        timeout=timeout,
        ssl_context=context,
        cert_reqs="CERT_REQUIRED",
    )


@contextmanager
def _deadline(sock: socket.socket | None, seconds: float) -> Iterator[None]:
    """Bound the time for status line and headers as a whole: a socket's own time limit starts anew
    with every byte. Raises: TimeoutError."""

    def shut() -> None:
        if sock is not None:
            with suppress(OSError):  # closed meanwhile
                sock.shutdown(socket.SHUT_RDWR)

    alarm = ALARMS.after(seconds, shut)
    try:
        yield
    except Exception as error:
        if not alarm.cancel():
            raise TimeoutError("no complete answer in time") from error
        raise
    else:
        if not alarm.cancel():
            raise TimeoutError("no complete answer in time")
    finally:
        alarm.cancel()
