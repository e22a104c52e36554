"""One connection at a time: time limits, stalls, and when to try again.

Owns the limits of every exchange with a registry. Invariant: no read waits without end, however
slowly the bytes drip, in the status line, in the headers, in the framing of a chunked body or in
the body itself.
"""

from __future__ import annotations

import re
import socket
import ssl
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from machineos.errors import StalledError, TransferError
from machineos.oci.registry.alarms import ALARMS

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from urllib3.response import BaseHTTPResponse, HTTPResponse

    from machineos.core.clock import Clock
    from machineos.oci.registry.alarms import Alarm


REDIRECTS = frozenset({301, 302, 303, 307, 308})
_DEEPEST = 8  # exceptions within each other
_OBJECT = re.compile(r"^[A-Za-z]+\([^)]*\): ")  # as urllib3 begins what it says
_PASSING = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how much, all in seconds and bytes.

    A body that brings less than ``window_bytes`` in ``window_seconds`` of waiting has stalled, and
    so has one that is silent for ``read_seconds``. ``attempts`` counts failures without progress.
    ``kept`` is how much of what was sent is kept for when a request breaks.
    """

    connect_seconds: float = 10
    read_seconds: float = 30
    answer_seconds: float = 60
    document_seconds: float = 60
    window_seconds: float = 20
    window_bytes: int = 16 << 10
    attempts: int = 5
    back_off: float = 0.5
    back_off_max: float = 15
    retry_after_max: float = 60
    redirects: int = 5
    pages: int = 100
    referrers: int = 1000
    tags: int = 10_000
    piece: int = 8 << 20
    kept: int = 16 << 20


class PassingError(TransferError):
    """A failure that may be over in a moment; ``after`` is what the server asked us to wait."""

    def __init__(
        self, message: str, *, status: int = 0, after: float | None = None, weight: int = 1
    ) -> None:
        super().__init__(message, status=status)
        self.after = after
        self.weight = weight


class Retry:
    """Counts the failures of one operation and waits between its attempts."""

    def __init__(self, limits: Limits, clock: Clock, jitter: random.Random) -> None:
        self._limits = limits
        self._clock = clock
        self._jitter = jitter
        self._failures = 0

    def progress(self) -> None:
        """Something useful came in: failures before it no longer count."""
        self._failures = 0

    def failed(self, error: TransferError) -> None:
        """Wait before the next attempt, or raise ``error`` when it cannot help or was the last."""
        if not isinstance(error, PassingError | StalledError):
            raise error
        self._failures += error.weight if isinstance(error, PassingError) else 1
        if self._failures >= self._limits.attempts:
            raise error
        pause = min(self._limits.back_off * 2 ** (self._failures - 1), self._limits.back_off_max)
        pause *= 0.5 + self._jitter.random() / 2
        after = error.after if isinstance(error, PassingError) else None
        self._clock.sleep(max(pause, min(after or 0.0, self._limits.retry_after_max)))


class Reader:
    """Reads a body and notices when it stops or drips.

    A read can hang inside the decoder of chunked bodies although bytes arrive, so another thread
    looks how long the current read takes and shuts the socket; time that the consumer takes is not
    held against the server.
    """

    def __init__(self, response: BaseHTTPResponse, limits: Limits, clock: Clock, what: str) -> None:
        self._response = response
        self._limits = limits
        self._clock = clock
        self._what = what
        self._started: float | None = None
        self._waited = 0.0
        self._got = 0
        self._stalled = False
        self._looking = threading.Lock()
        self._next: Alarm | None = None

    def __enter__(self) -> Reader:
        with self._looking:
            self._look_later()
        return self

    def __exit__(self, *_: object) -> None:
        with self._looking:  # afterwards the connection is somebody else's
            if self._next is not None:
                self._next.cancel()
                self._next = None

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes, none at the end. Raises: StalledError, TransferError."""
        begin = self._clock.monotonic()
        self._started = begin
        try:
            piece = self._response.read1(size, decode_content=False)
        except urllib3.exceptions.ReadTimeoutError as error:
            raise StalledError(f"{self._what}: nothing came for too long") from error
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            if self._stalled:
                raise self._stall() from error
            raise PassingError(f"{self._what}: the connection broke: {in_words(error)}") from error
        finally:
            self._started = None
        if self._stalled:
            raise self._stall()
        self._waited += self._clock.monotonic() - begin
        self._got += len(piece)
        if self._waited >= self._limits.window_seconds:
            if self._got < self._limits.window_bytes and piece:
                raise self._stall()
            self._waited, self._got = 0.0, 0
        return piece

    def _stall(self) -> StalledError:
        return StalledError(
            f"{self._what}: less than {self._limits.window_bytes} bytes in "
            f"{self._limits.window_seconds:.0f} s"
        )

    def _look_later(self) -> None:
        self._next = ALARMS.after(self._limits.window_seconds / 2, self._look)

    def _look(self) -> None:
        with self._looking:
            if self._next is None:
                return
            started = self._started
            window = self._limits.window_seconds
            if started is not None and self._clock.monotonic() - started > window:
                self._stalled = True
                with suppress(ValueError, RuntimeError, OSError):  # read or closed meanwhile
                    self._response.shutdown()
            self._look_later()


def exchange(
    pool: urllib3.PoolManager,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    what: str,
    hint: str,
    body: Iterable[bytes] | None = None,
) -> BaseHTTPResponse:
    """Send one request, once, and return its answer with the body unread; no redirect is followed.

    ``what`` names it in messages, ``hint`` says what to look at when TLS fails.
    Raises: StalledError, PassingError, TransferError.
    """
    sys.audit("machineos.request", method, url)
    try:
        response = pool.request(
            method,
            url,
            headers=headers,
            body=body,
            preload_content=False,
            decode_content=False,
            redirect=False,
            retries=False,
        )
    except urllib3.exceptions.SSLError as error:
        raise TransferError(f"{what}: TLS: {error}", hint=hint) from error
    except urllib3.exceptions.ReadTimeoutError as error:
        raise StalledError(f"{what}: no answer in time") from error
    except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError) as e:
        raise PassingError(f"{what}: cannot connect: {in_words(e)}", weight=2) from e
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise PassingError(f"{what}: {in_words(error)}") from error
    sys.audit("machineos.answer", method, url, response.status)
    return response


def in_words(error: BaseException) -> str:
    """Return what went wrong as the system or the server has it: libraries put their own objects
    before it."""
    innermost = error
    for _ in range(_DEEPEST):
        innermost = innermost.__cause__ or innermost
    text = str(innermost) if not isinstance(innermost, OSError) else innermost.strerror
    return _OBJECT.sub("", text or str(innermost) or type(innermost).__name__)


def status_error(text: str, response: BaseHTTPResponse) -> TransferError:
    """Return the error for an answer with the wrong status: one that may pass, where it can."""
    status = response.status
    if status not in _PASSING:
        return TransferError(text, status=status)
    after = response.headers.get("Retry-After", "").strip()
    good = after.isascii() and after.isdigit() and len(after) < 10
    return PassingError(text, status=status, after=float(after) if good else None)


def pool_manager(limits: Limits, ca_file: Path | None, *, tls: bool) -> urllib3.PoolManager:
    """Return connections that keep to ``limits`` and trust the system's CAs and ``ca_file``.

    Without ``tls`` the CAs are read only if a redirect leads to HTTPS: that takes 40 ms.
    """
    context = None
    if tls or ca_file is not None:
        context = ssl.create_default_context()
        if ca_file is not None:
            context.load_verify_locations(ca_file)
    manager = urllib3.PoolManager(
        num_pools=8,
        maxsize=16,
        timeout=urllib3.Timeout(connect=limits.connect_seconds, read=limits.read_seconds),
        ssl_context=context,
        cert_reqs="CERT_REQUIRED",
    )

    class Plain(HTTPConnection):
        def getresponse(self) -> HTTPResponse:  # type: ignore[override]
            with _deadline(self.sock, limits.answer_seconds):
                return super().getresponse()

    class Secure(HTTPSConnection):
        def getresponse(self) -> HTTPResponse:  # type: ignore[override]
            with _deadline(self.sock, limits.answer_seconds):
                return super().getresponse()

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    manager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
    return manager


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
