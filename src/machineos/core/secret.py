"""Secrets as a type: bytes that no log, message or repr can show by accident.

Invariant: the value leaves a ``Secret`` only through ``reveal``. Where secrets are read from is
``secretfile``; this type can stand in values that touch nothing.
"""

from __future__ import annotations

import hmac
from typing import NoReturn


class Secret:
    """Bytes that must not be shown; equal secrets are compared in constant time."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = bytes(value)

    def reveal(self) -> bytes:
        """Return the bytes; hand them only to what needs them."""
        return self._value

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
