"""Secrets as a type: bytes that no log, message or repr can show by accident.

Invariant: the value leaves a ``Secret`` only through ``reveal``. Secrets come from a file, a file
descriptor or a prompt, never from an argument or the environment.
"""

from __future__ import annotations

import hmac
import os
from typing import TYPE_CHECKING, NoReturn

from machineos.errors import DocumentError, Fault, MissingError

if TYPE_CHECKING:
    from pathlib import Path

MAX_SECRET = 4096


class Secret:
    """Bytes that must not be shown; equal secrets are compared in constant time."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = bytes(value)

    def reveal(self) -> bytes:
        """Return the bytes; hand them only to what needs them."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(hidden)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment]  # a hash would be a trace of the value

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled or copied to another process")


def read_secret(descriptor: int, *, name: str) -> Secret:
    """Return what an open descriptor gives until its end, without one final newline.

    ``name`` is for messages. Raises: DocumentError when it is empty or over ``MAX_SECRET`` bytes.
    """
    data = b""
    while len(data) <= MAX_SECRET + 1:
        chunk = os.read(descriptor, MAX_SECRET + 2 - len(data))
        if not chunk:
            break
        data += chunk
    value = data.removesuffix(b"\n").removesuffix(b"\r")
    if not value:
        raise DocumentError(name, [Fault("", 0, "holds no secret")])
    if len(value) > MAX_SECRET:
        raise DocumentError(name, [Fault("", 0, f"is larger than {MAX_SECRET} bytes")])
    return Secret(value)


def read_secret_file(path: Path) -> Secret:
    """Return the secret in a file or pipe (``/dev/fd/3`` too), without one final newline.

    Raises: MissingError, DocumentError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise MissingError(f"{path} does not exist") from error
    except OSError as error:
        message = f"cannot be opened: {error.strerror}"
        raise DocumentError(str(path), [Fault("", 0, message)]) from error
    try:
        return read_secret(descriptor, name=str(path))
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise DocumentError(str(path), [Fault("", 0, message)]) from error
    finally:
        os.close(descriptor)
