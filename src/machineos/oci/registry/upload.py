"""Pushing blobs: distribution specification 1.1, "Pushing blobs" and "Mounting a blob".

A large blob goes in one streamed request, which every registry takes, as its own tools send it. In
pieces it goes only from where a broken request has stopped, and where the one request is refused.
Invariant: success is said only after the registry answered that it has the digest that was
promised; the bytes are checked here too, so a registry that checks nothing still gets nothing wrong
from us.
"""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode, urlsplit

from machineos.errors import AuthError, DigestError, MissingError, StalledError, TransferError
from machineos.oci.model.stream import verified
from machineos.oci.registry.transport import Answer, Call, Stream
from machineos.oci.registry.wire import PassingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from machineos.oci.model.documents import Descriptor
    from machineos.oci.registry.transport import Body, Transport

_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,19})")
_PIECE_MAX = 32 << 20
_BINARY = {"Content-Type": "application/octet-stream"}
# That a piece was taken; some registries say so with the word for something that was made.
_TAKEN = (201, 202, 204)


class Session(NamedTuple):
    """An upload that the registry has opened: where it goes, and the least size of its pieces."""

    url: str
    least: int = 0


class Uploader:
    """Uploads to one repository."""

    def __init__(self, transport: Transport, name: str) -> None:
        self._transport = transport
        self._name = name
        self._scope = f"repository:{name}:pull,push"
        self._in_pieces = False  # the one request was refused

    def mount(self, descriptor: Descriptor, source: str) -> Session | None:
        """Ask for a blob of repository ``source``.

        Return None when the blob is here now, else the upload session that the registry opened
        instead. Raises: TransferError.
        """
        query = urlencode({"mount": str(descriptor.digest), "from": source})
        answer = self._call(
            "POST",
            f"/v2/{self._name}/blobs/uploads/?{query}",
            expect=(201, 202),
            scope=f"{self._scope} repository:{source}:pull",
        )
        if answer.status == 201:
            check_header(answer.headers, descriptor, f"{self._transport.host}/{self._name}")
            return None
        return self._opened(answer)

    def start(self) -> Session:
        """Open an upload session. Raises: TransferError."""
        return self._opened(self._call("POST", f"/v2/{self._name}/blobs/uploads/", expect=(202,)))

    def send(self, descriptor: Descriptor, chunks: Iterable[bytes], session: Session) -> None:
        """Send a blob into ``session``.

        Raises: DigestError, TransferError; after one that says that it was refused in one request,
        the next goes in pieces.
        """
        what = f"{self._transport.host}/{self._name}: blob {descriptor.digest}"
        checked = verified(chunks, descriptor, what)
        if descriptor.size <= self._transport.limits.piece:
            self._finish(descriptor, session.url, b"".join(checked))
            return
        sent = _Sent(checked, what, keep=self._transport.limits.kept)
        url, reached = session.url, 0
        if not self._in_pieces:
            try:
                url, reached = self._stream(descriptor, sent, session.url)
            except _RefusedError as error:
                # Nothing of it counts: another session, and from the start, if that is still here.
                self._in_pieces = True
                if not sent.has(0):
                    raise TransferError(error.message, hint="try again") from error
                session = self.start()
                url = session.url
        for offset, piece in _pieces(sent.since(reached), reached, self._size(session, what)):
            url = self._piece(url, offset, piece, what)
        self._finish(descriptor, url, b"")

    def _size(self, session: Session, what: str) -> int:
        if session.least > _PIECE_MAX:
            raise TransferError(f"{what}: the registry takes no piece below {session.least} bytes")
        return max(session.least, min(self._transport.limits.piece, _PIECE_MAX))

    def _stream(self, descriptor: Descriptor, sent: _Sent, session: str) -> tuple[str, int]:
        """Send all of it in one request; return where to go on, and how much has arrived."""
        body = Stream(descriptor.size, lambda: sent.since(0))
        try:
            answer = self._call(
                "PATCH", session, expect=_TAKEN, headers=_BINARY, body=body, retry=False
            )
        except MissingError as error:
            sent.blame()
            raise _lost(sent.what) from error
        except (PassingError, StalledError):
            sent.blame()
            answer, reached = self._ask(session, sent.what)
            if not sent.has(reached):
                raise _lost(sent.what) from None
            return self._next(answer, session), reached
        except AuthError:
            raise
        except TransferError as error:
            sent.blame()
            raise _RefusedError(error.message) from error
        return self._next(answer, session), descriptor.size

    def _piece(self, session: str, offset: int, piece: bytearray, what: str) -> str:
        """Send one piece that starts at ``offset``; return where the next one goes."""
        end = offset + len(piece)
        start = offset
        count = self._transport.retry()
        while start < end:
            headers = {**_BINARY, "Content-Range": f"{start}-{end - 1}"}
            body = memoryview(piece)[start - offset :]
            try:
                answer = self._call(
                    "PATCH", session, expect=_TAKEN, headers=headers, body=body, retry=False
                )
                reached = end  # what it says of it some registries count in their own way
            except MissingError as error:
                raise _lost(what) from error
            except TransferError as error:
                count.failed(error)
                answer, reached = self._ask(session, what)
            if not start <= reached <= end:
                raise TransferError(f"{what}: the registry has {reached} bytes, not {start}")
            if reached > start:
                count.progress()
            start = reached
            session = self._next(answer, session)
        return session

    def _ask(self, session: str, what: str) -> tuple[Answer, int]:
        """Ask how many bytes of an upload have arrived."""
        try:
            answer = self._call("GET", session, expect=(200, 202, 204))
        except MissingError as error:
            raise _lost(what) from error
        return answer, _reached(answer.headers)

    def _finish(self, descriptor: Descriptor, session: str, body: bytes) -> None:
        joint = "&" if urlsplit(session).query else "?"
        url = f"{session}{joint}{urlencode({'digest': str(descriptor.digest)})}"
        what = f"{self._transport.host}/{self._name}"
        try:
            answer = self._call(
                "PUT", url, expect=(201, 204), headers=_BINARY if body else None, body=body
            )
        except (TransferError, MissingError):
            # The answer to a PUT that worked can be lost, and then the session is gone.
            answer = self._call(
                "HEAD", f"/v2/{self._name}/blobs/{descriptor.digest}", expect=(200, 404)
            )
            if answer.status == 404:
                raise
        check_header(answer.headers, descriptor, what)

    def _call(
        self,
        method: str,
        url: str,
        *,
        expect: tuple[int, ...],
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        retry: bool = True,
        scope: str = "",
    ) -> Answer:
        call = Call(
            method, url, self._name, scope or self._scope, expect, headers=headers or {}, body=body
        )
        return self._transport.call(call, retry=retry)

    def _opened(self, answer: Answer) -> Session:
        if not answer.headers.get("Location"):
            raise TransferError(f"{self._transport.host}/{self._name}: an upload without Location")
        least = answer.headers.get("OCI-Chunk-Min-Length", "").strip()
        known = least.isascii() and least.isdigit() and len(least) < 20
        return Session(self._next(answer, ""), int(least) if known else 0)

    def _next(self, answer: Answer, before: str) -> str:
        """Return where an upload goes on: what the answer says, seen from who gave it."""
        where = answer.headers.get("Location", "")
        if not where:
            return before
        return self._transport.checked_url(
            self._transport.joined_url(answer.url, where), answer.url
        )


class _RefusedError(TransferError):
    """The registry does not take a blob in one request."""


class _Sent:
    """The bytes of a blob on their way; the last of them are kept, to be sent again."""

    def __init__(self, chunks: Iterable[bytes], what: str, *, keep: int) -> None:
        self.what = what
        self._most = keep
        self._chunks = iter(chunks)
        self._kept: deque[bytes] = deque()
        self._size = 0  # of what is kept
        self._taken = 0
        self._error: Exception | None = None

    def has(self, offset: int) -> bool:
        """Return whether the bytes from ``offset`` on are here."""
        return self._taken - self._size <= offset <= self._taken

    def since(self, offset: int) -> Iterator[bytes]:
        """Yield the bytes from ``offset`` on. Raises: TransferError (they are not kept), and what
        the chunks raise."""
        if not self.has(offset):
            raise _lost(self.what)
        at = self._taken - self._size
        for chunk in tuple(self._kept):
            if at + len(chunk) > offset:
                yield chunk[max(0, offset - at) :]
            at += len(chunk)
        try:
            for chunk in self._chunks:
                self._keep(chunk)
                yield chunk
        except Exception as error:
            self._error = error
            raise

    def blame(self) -> None:
        """Raise what the chunks raised, if they did: then it was not the registry."""
        if self._error is not None:
            raise self._error

    def _keep(self, chunk: bytes) -> None:
        self._taken += len(chunk)
        self._kept.append(chunk)
        self._size += len(chunk)
        while self._size - len(self._kept[0]) >= self._most:
            self._size -= len(self._kept.popleft())


def _lost(what: str) -> TransferError:
    return TransferError(f"{what}: the registry lost the upload", hint="try again")


def check_header(headers: Mapping[str, str], descriptor: Descriptor, what: str) -> None:
    """Refuse an answer about another digest. Raises: DigestError."""
    told = headers.get("Docker-Content-Digest", "")
    if told.startswith(f"{descriptor.digest.algorithm}:") and told != str(descriptor.digest):
        raise DigestError(f"{what}: the registry stored {descriptor.digest} as {told[:150]}")


def _reached(headers: Mapping[str, str]) -> int:
    """Return the number of bytes that a Range header says have arrived.

    Some registries write ``0-0`` for none, others ``0--1`` or nothing at all.
    """
    match = _RANGE.fullmatch(headers.get("Range", "").strip())
    return int(match[1]) + 1 if match and match[1] != "0" else 0


def _pieces(chunks: Iterable[bytes], offset: int, size: int) -> Iterator[tuple[int, bytearray]]:
    """Gather chunks, the first of which is at ``offset``, into pieces of at least ``size`` bytes,
    each a buffer of its own, with its place."""
    piece = bytearray()
    for chunk in chunks:
        piece += chunk
        if len(piece) >= size:
            yield offset, piece
            offset += len(piece)
            piece = bytearray()
    if piece:
        yield offset, piece
