"""HTTP to one registry: connections, time limits, retries, redirects, authorization.

Owns everything between "send this request" and "here are the bytes of the answer". Invariants: no
answer is waited for without end, however slowly its bytes drip; nothing larger than its bound is
read; credentials go to the registry itself only; HTTPS is never left for HTTP.
"""

from __future__ import annotations

import random
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urljoin, urlsplit

from machineos import __version__
from machineos.core.jsondoc import parse_json
from machineos.errors import (
    AuthError,
    DigestError,
    DocumentError,
    Fault,
    MissingError,
    StalledError,
    TransferError,
)
from machineos.oci.model.reference import check_host, is_loopback
from machineos.oci.registry import hub
from machineos.oci.registry.auth import Authenticator, Credentials, parse_challenges
from machineos.oci.registry.encoding import Unpacked, encoding_of, is_packed
from machineos.oci.registry.pools import Pools
from machineos.oci.registry.wire import (
    REDIRECTS,
    Limits,
    PassingError,
    Reader,
    Retry,
    exchange,
    status_error,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from urllib3.response import BaseHTTPResponse

    from machineos.core.clock import Clock
    from machineos.oci.registry.certificates import Certificates
    from machineos.oci.registry.proxy import Proxies

_ERROR_LIMIT = 16 << 10
_TOKEN_LIMIT = 64 << 10
_PIECE = 256 << 10
_SLICE = 64 << 10


# They keep method and body; the others are for questions only (RFC 9110, section 15.4).
_KEEPS_BODY = frozenset({307, 308})
_PORTS = {"http": 80, "https": 443}


class Stream(NamedTuple):
    """A body of ``size`` bytes that is made while it is sent; each attempt calls ``begin``."""

    size: int
    begin: Callable[[], Iterator[bytes]]


Body = bytes | memoryview | Stream


class Answer(NamedTuple):
    """Status, headers and body of an answer, and the URL that gave it, behind all redirects."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str


class UnaskedError(AuthError):
    """The registry lets nobody in, and does not say how one gets in."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request about the repository ``name``.

    ``url`` is a path on this registry or an absolute URL that it gave us; ``scope`` is what we need
    to be allowed; ``expect`` lists the statuses that are answers and not errors.
    """

    method: str
    url: str
    name: str
    scope: str
    expect: Collection[int]
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None


class Transport:
    """Requests to the registry ``host`` (``name[:port]``). Safe for use by several threads."""

    def __init__(
        self,
        host: str,
        *,
        plain_http: bool,
        credentials: Credentials | None,
        certificates: Certificates,
        proxies: Proxies,
        clock: Clock,
        limits: Limits,
        seed: int | None,
    ) -> None:
        self.host = check_host(host)
        self.limits = limits
        self.clock = clock
        self._allow_http = plain_http
        # Who names a CA means TLS, also on loopback.
        clear = plain_http or (is_loopback(host) and not certificates.ca)
        self.base = f"{'http' if clear else 'https'}://{hub.server(host)}"
        self._jitter = random.Random(seed)  # noqa: S311 (spreads load, guards nothing)
        tls = self.base.startswith("https:")
        self._pools = Pools(limits, certificates, proxies, tls=tls)
        self._auth = Authenticator(
            host,
            credentials,
            plain_http=plain_http,
            fetch=self._fetch_token,
            monotonic=clock.monotonic,
        )

    def close(self) -> None:
        """Close all connections."""
        self._pools.clear()

    def retry(self) -> Retry:
        """Return a fresh count of failures."""
        return Retry(self.limits, self.clock, self._jitter)

    @contextmanager
    def open(self, call: Call) -> Iterator[tuple[BaseHTTPResponse, str]]:
        """Send one request, once, and yield its answer with the body unread, and who gave it.

        Raises: TransferError, AuthError, MissingError.
        """
        target = self.checked_url(self.joined_url(self.base, call.url), self.base)
        response, last = self._with_auth(call, target)
        try:
            self._check_status(response, self._what(call), call.expect)
            yield response, last
        finally:
            # A body that was read to its end has gone back to the pool by itself.
            response.close()

    def call(self, call: Call, *, limit: int = _ERROR_LIMIT, retry: bool = True) -> Answer:
        """Send a request, again when it fails in passing, and return its answer.

        Raises: TransferError, AuthError, MissingError; DocumentError when the body is over
        ``limit``.
        """
        count = self.retry()
        while True:
            try:
                with self.open(call) as (response, url):
                    if call.method == "HEAD":
                        response.drain_conn()
                        return Answer(response.status, response.headers, b"", url)
                    data = self._document(response, limit, self._what(call))
                    return Answer(response.status, response.headers, data, url)
            except TransferError as error:
                if not retry:
                    raise
                count.failed(error)

    def body(self, response: BaseHTTPResponse, size: int, what: str) -> Iterator[bytes]:
        """Yield the pieces of a body of exactly ``size`` bytes.

        Raises: StalledError, TransferError when it ends early, DigestError when it goes on.
        """
        seen = 0
        with Reader(response, self.limits, self.clock, what) as raw:
            packed = is_packed(response, size)
            reader = Unpacked(raw, what) if packed else raw
            while seen < size:
                piece = reader.read(min(_PIECE, size - seen))
                if not piece and packed:
                    raise DigestError(f"{what}: {seen} bytes, expected {size}")
                if not piece:
                    raise PassingError(f"{what}: the connection broke after {seen} bytes")
                seen += len(piece)
                yield piece
            if reader.read(1):
                raise DigestError(f"{what}: longer than the {size} bytes promised")

    def joined_url(self, origin: str, url: str) -> str:
        """Return ``url``, as the registry gave it, seen from ``origin``. Raises: TransferError."""
        try:
            joined = urljoin(origin, url)
            _ = urlsplit(joined).port  # looked at only now, so a bad one would surface much later
        except ValueError as error:
            raise TransferError(f"{self.host}: sends us to {url[:200]!r}: {error}") from error
        return joined

    def checked_url(self, url: str, origin: str) -> str:
        """Return ``url`` if we may go there from ``origin``. Raises: TransferError."""
        parts, before = urlsplit(url), urlsplit(origin)
        if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc:
            raise TransferError(f"{self.host}: sends us to {url[:200]!r}, which is no web address")
        if parts.scheme == "http":
            if before.scheme == "https":
                raise TransferError(f"{self.host}: sends us from https to {url[:200]!r}")
            if not is_loopback(parts.netloc) and not self._allow_http:
                raise TransferError(f"{self.host}: plain HTTP to {parts.netloc} was not asked for")
        return url

    def page_url(self, url: str, origin: str) -> str:
        """Return the URL of a next page; it stays on this registry. Raises: TransferError."""
        target = self.joined_url(self.joined_url(self.base, origin), url)
        if not _same_origin(target, self.base):
            raise TransferError(f"{self.host}: the next page is elsewhere: {target[:200]!r}")
        return target

    def _what(self, call: Call) -> str:
        return f"{call.method} {self.host}/{call.name}"

    def _with_auth(self, call: Call, url: str) -> tuple[BaseHTTPResponse, str]:
        token = self._auth.header(call.name, call.scope)
        response, last = self._follow(call, url, token)
        # Only the registry itself may ask who we are, not who it sends us to (CVE-2020-15157).
        if response.status != 401 or not _same_origin(last, self.base):
            return response, last
        said = response.headers.getlist("WWW-Authenticate")
        if not said:
            return response, last
        challenges = parse_challenges(said)
        self._drop(response)
        token = self._auth.answer(challenges, call.name, call.scope)
        return self._follow(call, url, token)

    def _follow(self, call: Call, url: str, token: str | None) -> tuple[BaseHTTPResponse, str]:
        """Return the answer behind all redirects, and the URL that gave it."""
        for _ in range(self.limits.redirects + 1):
            sent = {**call.headers, "User-Agent": f"machineos/{__version__}"}
            sent.setdefault("Accept-Encoding", "identity")
            if token is not None and _same_origin(url, self.base):
                sent["Authorization"] = token
            response = self._send(call.method, url, sent, call.body)
            where = response.headers.get("Location")
            leads = REDIRECTS if call.method in {"GET", "HEAD"} else _KEEPS_BODY
            stays = response.status not in leads
            if stays or where is None:
                return response, url
            self._drop(response)
            url = self.checked_url(self.joined_url(url, where), url)
        raise TransferError(f"{self.host}: more than {self.limits.redirects} redirects")

    def _send(
        self, method: str, url: str, headers: dict[str, str], body: Body | None
    ) -> BaseHTTPResponse:
        if body is not None:
            size = body.size if isinstance(body, Stream) else len(body)
            headers["Content-Length"] = str(size)
        elif method in {"POST", "PUT", "PATCH"}:
            headers["Content-Length"] = "0"
        return exchange(
            self._pools,
            method,
            url,
            headers=headers,
            # In slices, because a time limit covers one call to send.
            body=None if body is None else _slices(body),
            what=f"{method} {self.host}",
            hint="--tls-ca CA.pem names a CA to believe, --plain-http asks for no TLS",
        )

    def _check_status(self, response: BaseHTTPResponse, what: str, expect: Collection[int]) -> None:
        status = response.status
        encoding = encoding_of(response)
        if status in expect:
            if encoding not in {"", "gzip"}:
                raise TransferError(f"{what}: the answer is encoded as {encoding[:40]!r}")
            return
        text = f"{what}: {status}{self._reason(response)}"
        if status in {401, 403}:
            asked = status == 403 or response.headers.getlist("WWW-Authenticate")
            kind = AuthError if asked else UnaskedError
            raise kind(text, status=status, hint=f"log in again: skopeo login {self.host}")
        if status == 404:
            raise MissingError(text)
        raise status_error(text, response)

    def _reason(self, response: BaseHTTPResponse) -> str:
        try:
            body = parse_json(self._document(response, _ERROR_LIMIT, ""), name="error")
            first = body["errors"][0]
            text = f"{first.get('code', '')}: {first.get('message', '')}"
        except (TransferError, DocumentError, KeyError, IndexError, TypeError, AttributeError):
            return ""
        return " " + "".join(char if char.isprintable() else "?" for char in text[:300])

    def _document(self, response: BaseHTTPResponse, limit: int, what: str) -> bytes:
        """Return a small body whole, within a total time."""
        length = _told_length(response, what)
        if length is not None and length > limit:
            raise _too_large(what, limit)
        packed = is_packed(response, None)
        pieces, seen = [], 0
        end = self.clock.monotonic() + self.limits.document_seconds
        with Reader(response, self.limits, self.clock, what) as raw:
            reader = Unpacked(raw, what) if packed else raw
            while piece := reader.read(min(_PIECE, limit + 1 - seen)):
                seen += len(piece)
                if seen > limit:
                    raise _too_large(what, limit)
                pieces.append(piece)
                if self.clock.monotonic() > end:
                    raise StalledError(f"{what}: {seen} bytes in {self.limits.document_seconds} s")
        if length is not None and seen != length and not packed:
            raise PassingError(f"{what}: the connection broke after {seen} bytes")
        return b"".join(pieces)

    def _drop(self, response: BaseHTTPResponse) -> None:
        """Read a short body so that its connection can be used again; close a long one."""
        try:
            self._document(response, _ERROR_LIMIT, "")
        except (TransferError, DocumentError):
            pass
        finally:
            response.close()

    def _fetch_token(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None
    ) -> bytes:
        sent = {**headers, "User-Agent": f"machineos/{__version__}", "Accept-Encoding": "identity"}
        response = self._send_token(method, url, sent, body)
        try:
            if response.status != 200:
                raise AuthError(
                    f"{self.host}: the token service answered {response.status}",
                    status=response.status,
                    hint=f"check the credentials: skopeo login {self.host}",
                )
            return self._document(response, _TOKEN_LIMIT, f"{self.host}: token service")
        finally:
            response.close()

    def _send_token(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None
    ) -> BaseHTTPResponse:
        """Return the answer behind all redirects. What says who we are stays with the one whom the
        registry named: a password does not go along, and what is a part of the body goes nowhere.
        """
        for _ in range(self.limits.redirects + 1):
            response = self._send(method, url, dict(headers), body)
            where = response.headers.get("Location")
            if response.status not in (REDIRECTS if method == "GET" else _KEEPS_BODY) or not where:
                return response
            target = self.checked_url(self.joined_url(url, where), url)
            if not _same_origin(target, url):
                headers = {key: text for key, text in headers.items() if key != "Authorization"}
                if body is not None:
                    return response
            self._drop(response)
            url = target
        raise TransferError(f"{self.host}: the token service sends us on and on")


def _slices(body: Body) -> Iterator[bytes]:
    for chunk in body.begin() if isinstance(body, Stream) else (body,):
        view = memoryview(chunk)
        for start in range(0, len(view), _SLICE):
            yield bytes(view[start : start + _SLICE])


def _told_length(response: BaseHTTPResponse, what: str) -> int | None:
    """Return what Content-Length says, None when it says nothing. Raises: TransferError."""
    text = response.headers.get("Content-Length", "")
    if text and not (text.isascii() and text.isdigit() and len(text) < 20):
        raise TransferError(f"{what}: the registry says {text[:40]!r} as its length")
    return int(text) if text else None


def _same_origin(first: str, second: str) -> bool:
    return _origin(first) == _origin(second)


def _origin(url: str) -> tuple[str, str, int | None]:
    """Return what makes an origin (RFC 6454, section 4): a port not said is the scheme's."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme)


def _too_large(what: str, limit: int) -> DocumentError:
    return DocumentError(what, [Fault("", 0, f"the answer is larger than {limit} bytes")])
