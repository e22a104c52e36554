"""The ways to a TPM 2.0: the kernel's resource manager, or the socket of a software TPM.

Invariant: ``transmit`` returns one whole answer, bounded in size, or raises.
Shared with the initrd: standard library only.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Protocol

from machineos.errors import TpmError
from machineos.host.tpm.wire import MAX_MESSAGE, parse_header

DEVICE = Path("/dev/tpmrm0")
_HEADER_SIZE = 10


class Transport(Protocol):
    """A way to a TPM."""

    def transmit(self, command: bytes) -> bytes:
        """Send one command and return the whole answer. Raises: TpmError."""
        ...

    def close(self) -> None:
        """Let go of the TPM."""
        ...


class DeviceTransport:
    """The TPM behind the kernel's resource manager, which drops what we leave loaded on close."""

    def __init__(self, path: str | Path = DEVICE) -> None:
        """Open the device. Raises: TpmError when there is none."""
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise TpmError(
                f"no TPM: {path} does not exist", hint="enable the TPM 2.0 in the firmware setup"
            ) from error
        except OSError as error:
            raise TpmError(f"no TPM: {path}: {error.strerror}") from error

    def transmit(self, command: bytes) -> bytes:
        """Send one command and return the whole answer. Raises: TpmError."""
        try:
            os.write(self._descriptor, command)
            return os.read(self._descriptor, MAX_MESSAGE)
        except OSError as error:
            raise TpmError(f"the TPM does not answer: {error.strerror}") from error

    def close(self) -> None:
        """Let go of the TPM."""
        os.close(self._descriptor)


class SocketTransport:
    """The raw command stream of ``swtpm socket --server``: a unix socket, or host and port."""

    def __init__(self, address: Path | tuple[str, int], *, timeout: float = 60.0) -> None:
        """Connect. ``timeout`` is in seconds, for each answer. Raises: TpmError."""
        family = socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(timeout)
            self._socket.connect(str(address) if isinstance(address, Path) else address)
        except OSError as error:
            self._socket.close()
            raise TpmError(f"no TPM: {address}: {error.strerror or error}") from error

    def transmit(self, command: bytes) -> bytes:
        """Send one command and return the whole answer. Raises: TpmError."""
        try:
            self._socket.sendall(command)
            head = self._receive(_HEADER_SIZE)
            _, size, _ = parse_header(head)
            return head + self._receive(size - _HEADER_SIZE)
        except OSError as error:
            raise TpmError(f"the TPM does not answer: {error.strerror or error}") from error

    def close(self) -> None:
        """Let go of the TPM."""
        self._socket.close()

    def _receive(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._socket.recv(count - len(data))
            if not piece:
                raise TpmError("the TPM hung up")
            data += piece
        return data
