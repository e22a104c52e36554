"""Snapshots of a running guest: memory, devices, TPM, disks and UEFI variables under one name.

They live inside the qcow2 images, so every image that the guest can write has to be qcow2.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from machineos.errors import MachineError, UsageError
from machineos.host.virt import qmp

if TYPE_CHECKING:
    from machineos.vm.store import MachinePaths

TAG = re.compile(r"[a-z][a-z0-9-]{0,31}")  # a digit in front could be taken for an id
_TIMEOUT = 900.0  # the guest's memory is written to a disk that may be slow


def save(paths: MachinePaths, tag: str) -> None:
    """Save the guest as ``tag``, replacing one of that name. Raises: UsageError, MachineError."""
    _monitor(paths, "savevm", tag)


def load(paths: MachinePaths, tag: str) -> None:
    """Put the guest back to ``tag``. Raises: UsageError, MachineError."""
    _monitor(paths, "loadvm", tag)


def _monitor(paths: MachinePaths, command: str, tag: str) -> None:
    check_tag(tag)
    answer = qmp.monitor(paths.qmp, f"{command} {tag}", timeout=_TIMEOUT)
    if answer:
        raise MachineError(f"{command} {tag}: {answer}")


def check_tag(tag: str) -> None:
    """Raise UsageError unless ``tag`` can name a snapshot."""
    if not TAG.fullmatch(tag):
        raise UsageError(f"{tag[:60]!r} cannot name a snapshot (a-z, 0-9 and -, a letter first)")
