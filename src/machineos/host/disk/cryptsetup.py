"""LUKS2 volumes, really made and opened. Shared with the initrd: standard library and core only.

Invariant: a key goes in by standard input only, and is revealed nowhere else. cryptsetup itself
waits for the disk when it formats (seen with strace).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from machineos.core.run import perform, run
from machineos.host.disk import luks

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.core.secret import Secret


def format_volume(volume: luks.LuksVolume, passphrase: Secret, *, uuid: str) -> None:
    """Format a device with integrity of its own; see ``luks.format_command``. Raises: ToolError."""
    command = luks.format_command(volume, uuid=uuid)
    run(command.argv, input=passphrase.view(), timeout=command.timeout)


def format_keyed(volume: luks.LuksVolume, passphrase: Secret, key: Secret, *, uuid: str) -> None:
    """Format a device without integrity of its own, so that ``key`` is the key of its blocks.

    Raises: ToolError.
    """
    reader, writer = os.pipe()  # takes more than a key at once
    try:
        with os.fdopen(writer, "wb", buffering=0) as pipe:
            pipe.write(key.view())
        file = f"/proc/self/fd/{reader}"
        command = luks.format_command(volume, uuid=uuid, integrity=False, key_file=file)
        run(command.argv, input=passphrase.view(), timeout=command.timeout, pass_fds=(reader,))
    finally:
        os.close(reader)


def open_volume(volume: luks.LuksVolume, passphrase: Secret, *, header: Path | None = None) -> Path:
    """Open a device and return the mapped node. Raises: VerificationError."""
    command = luks.open_command(volume, header=header)
    result = run(command.argv, input=passphrase.view(), timeout=command.timeout, check=False)
    return luks.check_opened(volume, result)


def close_volume(name: str) -> None:
    """Close a volume; one that is not open is no error. Raises: ToolError."""
    if (luks.MAPPER / name).exists():
        perform(luks.close_command(name))


def read_header(device: Path, size: int) -> bytes:
    """Return the first ``size`` bytes of what may be a LUKS device. Raises: OSError."""
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(size)
