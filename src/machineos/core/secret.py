"""Secrets as a type: bytes that no log, message or repr can show by accident.

Invariant: the value leaves a ``Secret`` only through ``reveal`` and ``view``, and after ``wipe`` by
neither. Where secrets are read from is ``secretfile``; this type can stand in values that touch
nothing. What Python copied on the way (``bytes`` cannot be changed) is out of its reach.
"""

from __future__ import annotations

import hmac
from typing import NoReturn

from machineos.errors import OrderError


class Secret:
    """Bytes that must not be shown; equal secrets are compared in constant time."""

    __slots__ = ("_value", "_wiped")

    def __init__(self, value: bytes | bytearray | memoryview) -> None:
        self._value = bytearray(value)
        self._wiped = False

    def reveal(self) -> bytes:
        """Return a copy, which stays in memory whatever becomes of this; hand it only to what
        needs it. Raises: OrderError (it was overwritten)."""
        return bytes(self.view())

    def view(self) -> memoryview:
        """Return the bytes themselves, without a copy, for what takes a buffer.

        Raises: OrderError (they were overwritten).
        """
        if self._wiped:
            raise OrderError("a secret is asked for that was overwritten")
        return memoryview(self._value).toreadonly()

    def wipe(self) -> None:
        """Overwrite the bytes in their place; nobody can have them from here any more."""
        self._value[:] = bytes(len(self._value))
        self._wiped = True

    @property
    def wiped(self) -> bool:
        """Whether it was overwritten."""
        return self._wiped

    def __len__(self) -> int:
        """Return how many bytes: every place that keeps a secret shows as much."""
        return len(self._value)

    def __repr__(self) -> str:
        return "Secret(hidden)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment]  # a hash would be a trace of the value

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled or copied to another process")
