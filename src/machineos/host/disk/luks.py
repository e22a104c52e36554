"""LUKS2 volumes with integrity, through ``cryptsetup``. Keys go in by standard input only.

Shared with the initrd: standard library and core only. The key is 256 random bits, so the key
derivation is PBKDF2 at its minimum: argon2 would cost seconds and add nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from machineos.core.run import run
from machineos.errors import VerificationError

MAPPER = Path("/dev/mapper")
HEADER_SIZE = 4 << 20
# Two metadata areas and the key slots end before 2 MiB: what lies between there and the data is
# ours (state/volumes/header keeps the authentication of the header in it).
KEYSLOTS_SIZE = 1 << 20
_TIMEOUT = 900.0


@dataclass(frozen=True, slots=True)
class LuksVolume:
    """A LUKS2 device and the name it is opened under."""

    device: Path
    name: str

    @property
    def mapped(self) -> Path:
        """The device node once it is open."""
        return MAPPER / self.name


def argv_format(volume: LuksVolume, *, uuid: str) -> list[str]:
    """Return the command that formats; everything on the device is lost."""
    return [
        "cryptsetup", "luksFormat", "--batch-mode", "--type=luks2",
        "--cipher=aes-xts-plain64", "--key-size=512", "--integrity=hmac-sha256",
        "--hash=sha256", "--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000", "--sector-size=4096",
        "--luks2-metadata-size=16k",
        f"--luks2-keyslots-size={KEYSLOTS_SIZE}", f"--offset={HEADER_SIZE // 512}",
        f"--uuid={uuid}", "--key-file=-", str(volume.device),
    ]  # fmt: skip


def argv_open(volume: LuksVolume, *, header: Path | None) -> list[str]:
    """Return the command that opens; ``header`` is the copy of the header that was verified."""
    argv = ["cryptsetup", "open", "--type=luks2", "--key-file=-"]
    if header is not None:
        argv.append(f"--header={header}")
    return [*argv, str(volume.device), volume.name]


def format_volume(volume: LuksVolume, key: bytes, *, uuid: str) -> None:
    """Format a device. Raises: ToolError."""
    run(argv_format(volume, uuid=uuid), input=key, timeout=_TIMEOUT)


def open_volume(volume: LuksVolume, key: bytes, *, header: Path | None = None) -> Path:
    """Open a device and return the mapped node. Raises: VerificationError."""
    result = run(argv_open(volume, header=header), input=key, timeout=_TIMEOUT, check=False)
    if result.status != 0:
        reason = result.stderr.decode("utf-8", "replace").strip()[-300:]
        raise VerificationError(f"{volume.device}: does not open with this machine's key: {reason}")
    return volume.mapped


def close_volume(name: str) -> None:
    """Close a volume; one that is not open is no error. Raises: ToolError."""
    if (MAPPER / name).exists():
        run(["cryptsetup", "close", name], timeout=_TIMEOUT)


def read_header(device: Path) -> bytes:
    """Return the header area: both binary headers, the JSON areas, the key slots."""
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(HEADER_SIZE)
