"""Bodies that come as ``Content-Encoding: gzip`` although they were asked for as they are.

Some servers compress on the way, others say so of what is a gzip file itself. Which it is only the
promised size tells: a body that has it is taken as it is, any other is unpacked. Invariant: no more
is unpacked than is asked for, and the digest is one of the result.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Protocol

from machineos.errors import DigestError
from machineos.oci.registry.wire import PassingError

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

_GZIP = frozenset({"gzip", "x-gzip"})
_HEADER_AND_TRAILER = 31  # of zlib's window bits: gzip, not zlib
_PIECE = 64 << 10


class Source(Protocol):
    """What bytes are read from, none at the end."""

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes."""
        ...


def encoding_of(response: BaseHTTPResponse) -> str:
    """Return how a body is encoded: empty, ``gzip``, or the name of what we do not take."""
    said = response.headers.get("Content-Encoding", "").strip().lower()
    if said in {"", "identity"}:
        return ""
    return "gzip" if said in _GZIP else said


def is_packed(response: BaseHTTPResponse, size: int | None) -> bool:
    """Whether a body of ``size`` bytes (None: not known) has to be unpacked to be had."""
    if encoding_of(response) != "gzip":
        return False
    return size is None or response.headers.get("Content-Length", "") != str(size)


class Unpacked:
    """The bytes that a source has packed, one stream or several one after the other."""

    def __init__(self, source: Source, what: str) -> None:
        self._source = source
        self._what = what
        self._engine = zlib.decompressobj(_HEADER_AND_TRAILER)
        self._begun = False

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes, none at the end. Raises: DigestError (what is no gzip),
        PassingError (it ends too early), and what the source raises."""
        while True:
            data = self._engine.unconsumed_tail or self._left() or self._source.read(_PIECE)
            if not data:
                if self._begun and not self._engine.eof:
                    raise PassingError(f"{self._what}: the connection broke")
                return b""
            self._begun = True
            try:
                piece = self._engine.decompress(data, size)
            except zlib.error as error:
                raise DigestError(f"{self._what}: is not the gzip that it is said to be") from error
            if piece:
                return piece

    def _left(self) -> bytes:
        """Return what came behind the end of a stream, which is the beginning of the next."""
        if not self._engine.eof:
            return b""
        rest = self._engine.unused_data
        if rest:
            self._engine = zlib.decompressobj(_HEADER_AND_TRAILER)
        return rest
