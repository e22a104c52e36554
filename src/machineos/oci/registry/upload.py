"""Pushing blobs: distribution specification 1.1, "Pushing blobs" and "Mounting a blob".

Invariant: success is said only after the registry answered 201 for the digest that was promised;
the bytes are checked here too, so a registry that checks nothing still gets nothing wrong from us.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from machineos.errors import DigestError, MissingError, TransferError
from machineos.oci.model.stream import verified
from machineos.oci.registry.transport import Call
from machineos.oci.registry.wire import PassingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from machineos.oci.model.documents import Descriptor
    from machineos.oci.registry.transport import Transport

_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,19})")
_PIECE_MAX = 32 << 20
_BINARY = {"Content-Type": "application/octet-stream"}


class Uploader:
    """Uploads to one repository."""

    def __init__(self, transport: Transport, name: str) -> None:
        self._transport = transport
        self._name = name
        self._scope = f"repository:{name}:pull,push"

    def mount(self, descriptor: Descriptor, source: str) -> str | None:
        """Ask for a blob of repository ``source``.

        Return None when the blob is here now, else the URL of the upload session that the registry
        opened instead. Raises: TransferError.
        """
        query = urlencode({"mount": str(descriptor.digest), "from": source})
        status, headers, _ = self._call(
            "POST",
            f"/v2/{self._name}/blobs/uploads/?{query}",
            expect=(201, 202),
            scope=f"{self._scope} repository:{source}:pull",
        )
        if status == 201:
            check_header(headers, descriptor, f"{self._transport.host}/{self._name}")
            return None
        return self._location(headers, self._transport.base)

    def start(self) -> str:
        """Open an upload session and return its URL. Raises: TransferError."""
        _, headers, _ = self._call("POST", f"/v2/{self._name}/blobs/uploads/", expect=(202,))
        return self._location(headers, self._transport.base)

    def send(self, descriptor: Descriptor, chunks: Iterable[bytes], session: str) -> None:
        """Send a blob into ``session``: at once when it is small, else in pieces, each of which is
        sent again from where the registry says it stopped.

        Raises: DigestError, TransferError.
        """
        what = f"{self._transport.host}/{self._name}: blob {descriptor.digest}"
        checked = verified(chunks, descriptor, what)
        size = self._transport.limits.piece
        if descriptor.size <= size:
            self._finish(descriptor, session, b"".join(checked))
            return
        offset = 0
        for piece in _pieces(checked, min(size, _PIECE_MAX)):
            session = self._piece(session, offset, piece, what)
            offset += len(piece)
        self._finish(descriptor, session, b"")

    def _piece(self, session: str, offset: int, piece: bytearray, what: str) -> str:
        """Send one piece that starts at ``offset``; return where the next one goes."""
        end = offset + len(piece)
        start = offset
        count = self._transport.retry()
        while start < end:
            headers = {**_BINARY, "Content-Range": f"{start}-{end - 1}"}
            body = memoryview(piece)[start - offset :]
            broken: TransferError | None = None
            try:
                _, answer, _ = self._call(
                    "PATCH", session, expect=(202,), headers=headers, body=body, retry=False
                )
                reached = _reached(answer, end)
            except MissingError as error:
                raise _lost(what) from error
            except TransferError as error:
                broken = error
                count.failed(error)
                answer, reached = self._ask(session, what)
            if not start <= reached <= end:
                raise TransferError(f"{what}: the registry has {reached} bytes, not {start}")
            if reached > start:
                count.progress()
            elif broken is None:
                count.failed(PassingError(f"{what}: the registry takes nothing more"))
            start = reached
            if "Location" in answer:
                session = self._location(answer, session)
        return session

    def _ask(self, session: str, what: str) -> tuple[Mapping[str, str], int]:
        """Ask how many bytes of an upload have arrived."""
        try:
            _, headers, _ = self._call("GET", session, expect=(204,))
        except MissingError as error:
            raise _lost(what) from error
        return headers, _reached(headers, 0)

    def _finish(self, descriptor: Descriptor, session: str, body: bytes) -> None:
        joint = "&" if urlsplit(session).query else "?"
        url = f"{session}{joint}{urlencode({'digest': str(descriptor.digest)})}"
        what = f"{self._transport.host}/{self._name}"
        try:
            _, headers, _ = self._call(
                "PUT", url, expect=(201,), headers=_BINARY if body else None, body=body
            )
        except (TransferError, MissingError):
            # The answer to a PUT that worked can be lost, and then the session is gone.
            status, headers, _ = self._call(
                "HEAD", f"/v2/{self._name}/blobs/{descriptor.digest}", expect=(200, 404)
            )
            if status == 404:
                raise
        check_header(headers, descriptor, what)

    def _call(
        self,
        method: str,
        url: str,
        *,
        expect: tuple[int, ...],
        headers: Mapping[str, str] | None = None,
        body: bytes | memoryview | None = None,
        retry: bool = True,
        scope: str = "",
    ) -> tuple[int, Mapping[str, str], bytes]:
        call = Call(
            method, url, self._name, scope or self._scope, expect, headers=headers or {}, body=body
        )
        return self._transport.call(call, retry=retry)

    def _location(self, headers: Mapping[str, str], origin: str) -> str:
        where = headers.get("Location", "")
        if not where:
            raise TransferError(f"{self._transport.host}/{self._name}: an upload without Location")
        return self._transport.checked_url(self._transport.joined_url(origin, where), origin)


def _lost(what: str) -> TransferError:
    return TransferError(f"{what}: the registry lost the upload", hint="try again")


def check_header(headers: Mapping[str, str], descriptor: Descriptor, what: str) -> None:
    """Refuse an answer about another digest. Raises: DigestError."""
    told = headers.get("Docker-Content-Digest", "")
    if told.startswith(f"{descriptor.digest.algorithm}:") and told != str(descriptor.digest):
        raise DigestError(f"{what}: the registry stored {descriptor.digest} as {told[:150]}")


def _reached(headers: Mapping[str, str], default: int) -> int:
    """Return the number of bytes that a Range header says have arrived.

    Some registries write ``0-0`` for none, others ``0--1`` or nothing at all.
    """
    text = headers.get("Range", "").strip()
    if not text:
        return default
    match = _RANGE.fullmatch(text)
    return int(match[1]) + 1 if match and match[1] != "0" else 0


def _pieces(chunks: Iterable[bytes], size: int) -> Iterator[bytearray]:
    """Gather chunks into pieces of at least ``size`` bytes, each a buffer of its own."""
    piece = bytearray()
    for chunk in chunks:
        piece += chunk
        if len(piece) >= size:
            yield piece
            piece = bytearray()
    if piece:
        yield piece
