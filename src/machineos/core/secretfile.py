"""Where secrets come from: a file, a file descriptor or a prompt.

Invariant: never an argument, never the environment; at most ``MAX_SECRET`` bytes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from machineos.core.secret import Secret
from machineos.errors import DocumentError, Fault, MissingError

if TYPE_CHECKING:
    from pathlib import Path

MAX_SECRET = 4096


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
