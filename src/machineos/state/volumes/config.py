"""The configuration volume: made by the installer, opened by the initrd of this machine only.

``header`` says what makes its LUKS2 header this machine's; here it is written.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from machineos.host.disk import cryptsetup
from machineos.host.disk.luks import LuksVolume
from machineos.state.volumes.header import NAME, RECORD_OFFSET, header_record, passphrase

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.core.secret import Secret


def format_config(key: Secret, device: Path, *, uuid: str) -> None:
    """Make the volume on ``device``, whose content is lost, and authenticate its header, durably.

    Raises: ToolError.
    """
    opening = passphrase(key)
    try:
        cryptsetup.format_volume(LuksVolume(device, NAME), opening, uuid=uuid)
    finally:
        opening.wipe()
    write_record(key, device)


def write_record(key: Secret, device: Path) -> None:
    """Authenticate the header that is on ``device`` now, durably."""
    descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        area = os.pread(descriptor, RECORD_OFFSET, 0)
        os.pwrite(descriptor, header_record(key, area), RECORD_OFFSET)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unlock_config(key: Secret, device: Path) -> Path:
    """Open the volume that was just made on ``device`` and return its node.

    For the installer only: nobody else may have written to that disk. Raises: VerificationError.
    """
    opening = passphrase(key)
    try:
        return cryptsetup.open_volume(LuksVolume(device, NAME), opening)
    finally:
        opening.wipe()


def lock_config() -> None:
    """Close the volume; one that is not open is no error. Raises: ToolError."""
    cryptsetup.close_volume(NAME)
