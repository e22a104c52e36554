"""A TPM that answers what it was told to, and keeps what it was asked; a clock that only counts."""

from __future__ import annotations

import struct
from datetime import datetime

from machineos.host.tpm.commands import Tpm
from machineos.host.tpm.transport import Transport
from vectors.certificates import NOW

NONCE = bytes(range(32))


class Counting:
    """A clock that stands and keeps what it was told to wait."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


class Scripted:
    """Gives its answers one after the other, the last one again and again."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = list(answers)
        self.asked: list[bytes] = []
        self.closed = False

    def transmit(self, command: bytes) -> bytes:
        self.asked.append(command)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def close(self) -> None:
        self.closed = True


def answer(code: int, body: bytes = b"", tag: int = 0x8001) -> bytes:
    """Return an answer of a TPM."""
    return struct.pack(">HII", tag, 10 + len(body), code) + body


def tpm_of(wire: Transport, clock: Counting | None = None) -> Tpm:
    """Return the commands over ``wire``, with a nonce that is known."""
    return Tpm(wire, clock=clock or Counting(), random=lambda count: NONCE[:count])
