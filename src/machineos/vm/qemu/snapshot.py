"""Snapshots of a running guest: memory, devices, TPM, disks and UEFI variables under one name.

They live inside the qcow2 images, so every image that the guest can write has to be qcow2. Nothing
here touches the host: the provider sends the line.
"""

from __future__ import annotations

import re
from typing import Literal

from machineos.errors import MachineError, UsageError

TAG = re.compile(r"[a-z][a-z0-9-]{0,31}")  # a digit in front could be taken for an id
TIMEOUT = 900.0  # the guest's memory is written to a disk that may be slow


def monitor_line(command: Literal["savevm", "loadvm"], tag: str) -> str:
    """Return the line for QEMU's monitor. Raises: UsageError for what cannot name a snapshot."""
    if not TAG.fullmatch(tag):
        raise UsageError(f"{tag[:60]!r} cannot name a snapshot (a-z, 0-9 and -, a letter first)")
    return f"{command} {tag}"


def require_silence(line: str, answer: str) -> None:
    """QEMU says something only when it could not. Raises: MachineError."""
    if answer:
        raise MachineError(f"{line}: {answer}")
