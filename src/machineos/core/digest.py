"""Content digests, as the OCI image specification defines them (descriptor, section "Digests").

Owns the one type for a digest. Invariant: a ``Digest`` that exists is well formed, so it can be
used as a file name without further checks.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from machineos.errors import DigestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SHAPE = {"sha256": re.compile(r"[a-f0-9]{64}"), "sha512": re.compile(r"[a-f0-9]{128}")}
_HASH = {"sha256": hashlib.sha256, "sha512": hashlib.sha512}  # hashlib.new() is slow to find one


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A digest ``algorithm:hex``; sha256 and sha512 only, lower case only."""

    algorithm: str
    hex: str

    def __post_init__(self) -> None:
        shape = _SHAPE.get(self.algorithm)
        if shape is None:
            raise DigestError(f"digest algorithm {self.algorithm[:32]!r} is not sha256 or sha512")
        if not shape.fullmatch(self.hex):
            raise DigestError(
                f"{self.hex[:80]!r} is not a {self.algorithm} value in lower-case hex"
            )

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read ``sha256:<hex>``. Raises: DigestError."""
        algorithm, colon, value = text.partition(":")
        if not colon:
            raise DigestError(f"{text[:80]!r} is not a digest (algorithm:hex)")
        return cls(algorithm, value)

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """Return the sha256 digest of ``data``."""
        return cls("sha256", hashlib.sha256(data).hexdigest())

    @classmethod
    def of_hex(cls, text: str) -> Digest | None:
        """Return the digest that is ``text`` in hex, whose length says of which algorithm; None
        when it is that of none."""
        found = (name for name, shape in _SHAPE.items() if shape.fullmatch(text))
        return next((cls(name, text) for name in found), None)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"

    @property
    def short(self) -> str:
        """The first twelve hex digits, for people."""
        return self.hex[:12]

    def hasher(self, data: bytes = b"") -> hashlib._Hash:
        """Return a hash of its algorithm that has seen ``data``."""
        return _HASH[self.algorithm](data)

    def check(self, data: bytes, what: str) -> None:
        """Raise DigestError unless ``data`` has this digest."""
        found = self.hasher(data).hexdigest()
        if found != self.hex:
            raise DigestError(f"{what}: digest is {self.algorithm}:{found}, expected {self}")


class Checker:
    """Hashes a stream while it passes and refuses it as soon as it cannot match.

    Feed every chunk to ``update``; call ``finish`` at the end. ``size`` bounds the stream: the
    first byte too many is an error, so that an endless stream is cut off and not stored.
    """

    def __init__(self, digest: Digest, size: int, what: str) -> None:
        self._digest = digest
        self._size = size
        self._what = what
        self._seen = 0
        self._hash = digest.hasher()

    @property
    def seen(self) -> int:
        """Bytes seen so far."""
        return self._seen

    def update(self, chunk: bytes | bytearray | memoryview) -> None:
        """Account for ``chunk``. Raises: DigestError when the stream is longer than promised."""
        self._seen += len(chunk)
        if self._seen > self._size:
            raise DigestError(f"{self._what}: longer than the {self._size} bytes promised")
        self._hash.update(chunk)

    def finish(self) -> None:
        """Raise DigestError unless the whole stream had the promised size and digest."""
        if self._seen != self._size:
            raise DigestError(f"{self._what}: {self._seen} bytes, expected {self._size}")
        if self._hash.hexdigest() != self._digest.hex:
            raise DigestError(
                f"{self._what}: digest is {self._digest.algorithm}:{self._hash.hexdigest()}, "
                f"expected {self._digest}"
            )

    def through(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield ``chunks`` unchanged while checking them, and finish at the end."""
        for chunk in chunks:
            self.update(chunk)
            yield chunk
        self.finish()


def is_digest(text: str) -> bool:
    """Whether a reference names what it means by its digest: no tag may look so."""
    return text.startswith(("sha256:", "sha512:"))
