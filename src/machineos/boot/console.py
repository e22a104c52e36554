"""Lines on the console of a machine that has nothing else yet.

Every line goes to ``/dev/console`` and, with its level, to the kernel log, so that the journal of
the booted system has it too.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from machineos.core.printable import printable

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.core.clock import Clock

_INFO, _ERROR = 6, 3


class Console:
    """Writes progress with the seconds since the kernel started."""

    def __init__(self, device: Path, log: Path, clock: Clock) -> None:
        self._clock = clock
        self._device = os.open(device, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
        self._log = os.open(log, os.O_WRONLY | os.O_CLOEXEC)

    def say(self, text: str) -> None:
        """Write one line of progress."""
        self._write(text, _INFO)

    def fail(self, text: str) -> None:
        """Write the one line that says why this boot ends here."""
        self._write(f"BOOT FAILED: {text}", _ERROR)

    def _write(self, text: str, level: int) -> None:
        line = printable(" ".join(text.split()))
        stamp = self._clock.monotonic()
        os.write(self._device, f"[{stamp:8.2f}] machineos: {line}\r\n".encode())
        os.write(self._log, f"<{level}>machineos: {line}\n".encode()[:900])
