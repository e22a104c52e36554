"""Strings with a grammar: a value that exists is well formed, so nothing checks it again.

Owns the base of such types and the two that every layer speaks of: the name of a document and the
root hash of a layer. They are strings, so they stand in file names, messages and files as they are;
the type says that somebody looked. (msgspec writes them with ``enc_hook=str``.)
"""

from __future__ import annotations

import hashlib
import re
from typing import ClassVar, Self

from machineos.errors import VerificationError

_SHOWN = 80


class Word(str):
    """A string that matches ``PATTERN`` as a whole; ``WHAT`` names it in messages.

    Raises when it is made: VerificationError.
    """

    __slots__ = ()
    PATTERN: ClassVar[str]
    WHAT: ClassVar[str]

    def __new__(cls, text: str) -> Self:  # noqa: D102 (the class says it)
        problem = cls.problem(text)
        if problem:
            raise VerificationError(problem)
        return super().__new__(cls, text)

    @classmethod
    def problem(cls, text: str) -> str:
        """Return what is wrong with ``text``, empty when nothing is."""
        if not text:
            return "is missing or empty"
        if not re.fullmatch(cls.PATTERN, text):
            return f"{text[:_SHOWN]!r} is not {cls.WHAT}"
        return ""


class DocumentId(Word):
    """The name of a signed document in a machine: the sha256 of its bytes in hex."""

    __slots__ = ()
    PATTERN = r"[0-9a-f]{64}"
    WHAT = "a sha256 in hex"

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Return the name of the document ``data``."""
        return cls(hashlib.sha256(data).hexdigest())


class RootHash(Word):
    """The dm-verity root hash of a layer: sha256 in hex, never all zero."""

    __slots__ = ()
    PATTERN = r"(?!0{64})[0-9a-f]{64}"
    WHAT = "a verity root hash"


class PublicKey(Word):
    """A public key of X25519: 32 bytes in hex."""

    __slots__ = ()
    PATTERN = r"[0-9a-f]{64}"
    WHAT = "a public key of X25519 in hex"

    @property
    def raw(self) -> bytes:
        """The bytes."""
        return bytes.fromhex(self)
