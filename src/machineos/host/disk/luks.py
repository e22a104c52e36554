"""LUKS2 volumes: the commands of ``cryptsetup``. Keys go in by standard input and pipes only.

The key is 256 random bits, so the key derivation is PBKDF2 at its minimum: argon2 would cost
seconds and add nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from machineos.core.command import Command
from machineos.errors import VerificationError

if TYPE_CHECKING:
    from machineos.core.command import Result

MAPPER = Path("/dev/mapper")
HEADER_SIZE = 4 << 20
# Two metadata areas and room for one key slot end before 1 MiB: what lies from there to the data
# is ours (state/volumes/header keeps the authentication of the header in it).
KEYSLOTS_SIZE = 512 << 10
CIPHER = "aes-xts-plain64"
_ITERATIONS = 1000
_TIMEOUT = 900.0
_SHOWN = 300  # characters of what cryptsetup complains of


class LuksVolume(msgspec.Struct, frozen=True):
    """A LUKS2 device and the name it is opened under."""

    device: Path
    name: str

    @property
    def mapped(self) -> Path:
        """The device node once it is open."""
        return MAPPER / self.name


def format_command(
    volume: LuksVolume, *, uuid: str, integrity: bool = True, key_file: str = ""
) -> Command:
    """Return the command that formats; everything on the device is lost. Without ``integrity`` what
    is below has to see to that; without ``key_file`` the volume key is made by chance."""
    argv = (
        "cryptsetup", "luksFormat", "--batch-mode", "--type=luks2", f"--cipher={CIPHER}",
        "--key-size=512", *(("--integrity=hmac-sha256",) if integrity else ()),
        "--hash=sha256", "--pbkdf=pbkdf2", f"--pbkdf-force-iterations={_ITERATIONS}",
        "--sector-size=4096", "--luks2-metadata-size=16k",
        f"--luks2-keyslots-size={KEYSLOTS_SIZE}", f"--offset={HEADER_SIZE // 512}",
        *((f"--volume-key-file={key_file}",) if key_file else ()), f"--uuid={uuid}", "--key-file=-",
        str(volume.device),
    )  # fmt: skip
    return Command(argv, _TIMEOUT)


def token_command(device: Path, token: bytes) -> Command:
    """Return the command that puts a token (JSON) into the header."""
    argv = ("cryptsetup", "token", "import", "--json-file=-", str(device))
    return Command(argv, _TIMEOUT, input=token)


def open_command(volume: LuksVolume, *, header: Path | None) -> Command:
    """Return the command that opens; ``header`` is the copy of the header that was verified. Every
    status is an answer: the key fits or it does not."""
    detached = () if header is None else (f"--header={header}",)
    argv = (
        "cryptsetup", "open", "--type=luks2", "--key-file=-", *detached, str(volume.device),
        volume.name,
    )  # fmt: skip
    return Command(argv, _TIMEOUT, success=None)


def check_opened(volume: LuksVolume, result: Result) -> Path:
    """Return the node of a volume that ``open_command`` has opened. Raises: VerificationError."""
    if result.status != 0:
        raise VerificationError(
            f"{volume.device}: does not open with this machine's key: {result.complaint[-_SHOWN:]}"
        )
    return volume.mapped


def close_command(name: str) -> Command:
    """Return the command that closes an open volume."""
    return Command(("cryptsetup", "close", name), _TIMEOUT)
