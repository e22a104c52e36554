"""What lies below the volumes of a machine, and how one volume is made: really done.

Integrity, keyed, is on the whole partition; LVM is on that, and each volume is LUKS2 of its own
without integrity (docs/adr/0030). Shared with the initrd.
"""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

from machineos.core.run import perform, run
from machineos.core.secret import Secret
from machineos.document.model.names import opened_name
from machineos.host.disk import cryptsetup, integritysetup, tools
from machineos.host.disk.direct import zero_ends
from machineos.host.disk.luks import LuksVolume
from machineos.state.volumes.header import passphrase
from machineos.state.volumes.sealed import INTEGRITY, SECRET_SIZE, make_token

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.core.command import Command

DATA = integritysetup.MAPPER / INTEGRITY  # what LVM is on
# LVM and its kin look for what was there at both ends, before they write.
_ENDS = 16 << 20


def make_integrity(key: Secret, device: Path) -> None:
    """Put keyed integrity on ``device`` and open it; what was there is lost. Raises: ToolError,
    OSError."""
    _give(integritysetup.format_command(device), key)
    open_integrity(key, device)
    zero_ends(DATA, _ENDS)


def open_integrity(key: Secret, device: Path) -> None:
    """Open it. Raises: ToolError (another key, or not made by us)."""
    _give(integritysetup.open_command(device, INTEGRITY), key)


def close_integrity() -> None:
    """Close it; one that is not open is no error. Raises: ToolError (in use)."""
    if DATA.exists():
        perform(integritysetup.close_command(INTEGRITY))


def format_sealed(device: Path, name: str, public: bytes, label: str) -> None:
    """Make a volume with an ext4 file system that the machine of this public key can open; it stays
    open. Nobody has what opens it when this returns.

    Raises: ToolError, VerificationError (no public key).
    """
    volume = LuksVolume(device, opened_name(name))
    number = str(uuid.uuid4())
    secret = Secret(os.urandom(SECRET_SIZE))
    opening = passphrase(secret)
    try:
        cryptsetup.format_volume(volume, opening, uuid=number, integrity=False)
        cryptsetup.add_token(device, make_token(public, secret, uuid=number, random=os.urandom))
        mapped = cryptsetup.open_volume(volume, opening)
    finally:
        secret.wipe()
        opening.wipe()
    tools.make_filesystem("ext4", mapped, label=label)


def close_sealed(name: str) -> None:
    """Close the volume; one that is not open is no error. Raises: ToolError (in use)."""
    cryptsetup.close_volume(opened_name(name))


def _give(command: Command, key: Secret) -> None:
    run(command.argv, input=key.view(), timeout=command.timeout)
