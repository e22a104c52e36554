"""The configuration volume: made by the installer, opened by the initrd of this machine only.

``header`` says what makes its LUKS2 header this machine's; here it is written.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from machineos.host.disk import luks
from machineos.state.volumes.header import LABEL as LABEL  # whoever makes one names it too
from machineos.state.volumes.header import NAME, RECORD_OFFSET, header_record
from machineos.state.volumes.header import passphrase as passphrase

if TYPE_CHECKING:
    from pathlib import Path


def format_config(key: bytes, device: Path, *, uuid: str) -> luks.LuksVolume:
    """Make the volume on ``device``, whose content is lost, and authenticate its header, durably.

    Raises: ToolError.
    """
    volume = luks.LuksVolume(device, NAME)
    luks.format_volume(volume, passphrase(key), uuid=uuid)
    write_record(key, device)
    return volume


def write_record(key: bytes, device: Path) -> None:
    """Authenticate the header that is on ``device`` now, durably."""
    descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        area = os.pread(descriptor, RECORD_OFFSET, 0)
        os.pwrite(descriptor, header_record(key, area), RECORD_OFFSET)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
