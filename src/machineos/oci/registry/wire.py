"""One connection at a time: time limits, stalls, and when to try again.

Owns the limits of every exchange with a registry. Invariant: no read waits without end, however
slowly the bytes drip, in the status line, in the headers, in the framing of a chunked body or in
the body itself.
"""

from __future__ import annotations

import re
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import urllib3

from machineos.errors import AuthError, StalledError, TransferError
from machineos.oci.registry.alarms import ALARMS

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Mapping

    from urllib3.response import BaseHTTPResponse

    from machineos.core.clock import Clock
    from machineos.oci.registry.alarms import Alarm
    from machineos.oci.registry.pools import Pools


REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_PROXY_WANTS_LOGIN = 407
_NO_TUNNEL = re.compile(r"Tunnel connection failed: ([0-9]{3})([^'\")]{0,100})")


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
            raise PassingError(f"{self._what}: the connection broke: {_cause(error)}") from error
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
    pools: Pools,
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
    Raises: StalledError, PassingError, TransferError, UsageError (a proxy that is none).
    """
    proxy = pools.proxy_for(url)
    if proxy is not None:
        what = f"{what} through the proxy {proxy}"
    sys.audit("machineos.request", method, url)
    try:
        response = pools.request(method, url, headers=headers, body=body)
    except urllib3.exceptions.SSLError as error:
        raise TransferError(f"{what}: TLS: {error}", hint=hint) from error
    except urllib3.exceptions.ReadTimeoutError as error:
        raise StalledError(f"{what}: no answer in time") from error
    except (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError) as e:
        raise PassingError(f"{what}: cannot connect: {_cause(e)}", weight=2) from e
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise _broken(what, error, proxied=proxy is not None) from error
    if response.status == _PROXY_WANTS_LOGIN:
        response.close()
        raise _no_tunnel(what, _PROXY_WANTS_LOGIN, "")
    sys.audit("machineos.answer", method, url, response.status)
    return response


def _broken(what: str, error: Exception, *, proxied: bool) -> TransferError:
    """Return the error for an exchange that broke, also before it came to the server."""
    if not proxied:
        return PassingError(f"{what}: {_cause(error)}")
    refused = _NO_TUNNEL.search(str(error))
    if refused is not None:
        return _no_tunnel(what, int(refused[1]), refused[2])
    return PassingError(f"{what}: {_cause(error)}", weight=2)


def _no_tunnel(what: str, status: int, reason: str) -> TransferError:
    """Return the error for a proxy that does not let us through."""
    if status == _PROXY_WANTS_LOGIN:
        return AuthError(
            f"{what}: it wants to know who we are, or does not believe it",
            hint="the variable takes user:password@ before the host",
            status=status,
        )
    said = "".join(char for char in reason if char.isprintable())
    text = f"{what}: it refuses: {status} {said}".rstrip()
    kind = PassingError if status in _PASSING else TransferError
    return kind(text, status=status)


def _cause(error: BaseException) -> str:
    """Return what the system or the server said, without the objects that urllib3 says it with."""
    while True:
        inner = error.__cause__ or error.__context__
        for item in error.args:
            if isinstance(item, BaseException):
                inner = item
        if inner is None:
            break
        error = inner
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text or type(error).__name__


def status_error(text: str, response: BaseHTTPResponse) -> TransferError:
    """Return the error for an answer with the wrong status: one that may pass, where it can."""
    status = response.status
    if status not in _PASSING:
        return TransferError(text, status=status)
    after = response.headers.get("Retry-After", "").strip()
    good = after.isascii() and after.isdigit() and len(after) < 10
    return PassingError(text, status=status, after=float(after) if good else None)
