"""The configuration volume: made by the installer, opened by the initrd of this machine only.

``header`` says whose a header is. Invariant: the header that cryptsetup is given in the initrd is
the copy that was verified, never the disk's, and a second disk with the same partition name is just
a candidate that does not match.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from machineos.core.files import write_atomic
from machineos.errors import BootError, VerificationError
from machineos.host.disk import tools
from machineos.host.disk.luks import LuksVolume
from machineos.state.volumes.header import (
    LABEL,
    NAME,
    RECORD_OFFSET,
    RECORD_SIZE,
    check_header,
    header_record,
    passphrase,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import Protocol

    from machineos.core.secret import Secret
    from machineos.host.disk.device import Partition

    class OpenVolume(Protocol):
        """Opens a LUKS volume under a header (``host.disk.tools.open_volume``)."""

        def __call__(
            self, volume: LuksVolume, passphrase: Secret, *, header: Path | None = None
        ) -> Path:
            """Return the mapped node. Raises: VerificationError."""
            ...


def format_config(key: Secret, device: Path, *, uuid: str) -> None:
    """Make the volume on ``device``, whose content is lost, and authenticate its header, durably.

    Raises: ToolError.
    """
    tools.format_volume(LuksVolume(device, NAME), passphrase(key), uuid=uuid)
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
    return tools.open_volume(LuksVolume(device, NAME), passphrase(key))


def lock_config() -> None:
    """Close the volume; one that is not open is no error. Raises: ToolError."""
    tools.close_volume(NAME)


def open_config(
    key: Secret,
    candidates: Iterable[Partition],
    scratch: Path,
    *,
    open_volume: OpenVolume = tools.open_volume,
) -> Partition:
    """Open the first candidate whose header is ours and return it.

    Raises: BootError naming every candidate and why it was refused.
    """
    reasons = []
    for partition in candidates:
        try:
            header = tools.read_header(partition.device)
            record = header[RECORD_OFFSET : RECORD_OFFSET + RECORD_SIZE]
            check_header(key, header[:RECORD_OFFSET], record, what=str(partition.device))
            copy = scratch / "luks-header"
            write_atomic(copy, header, mode=0o600)
            open_volume(LuksVolume(partition.device, NAME), passphrase(key), header=copy)
        except VerificationError as error:
            reasons.append(error.message)
        except OSError as error:  # a disk that cannot be read must not hide the one that can
            reasons.append(f"{partition.device}: {error.strerror}")
        else:
            return partition
    if not reasons:
        raise BootError(f"no disk has a partition {LABEL}: nothing is installed here")
    raise BootError("no configuration volume of this machine: " + "; ".join(reasons))
