"""What a dm-crypt volume is, and its line in a device-mapper table. Pure; ``dmcrypt`` opens it.

Kernel documentation: admin-guide/device-mapper/dm-crypt.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

# Of our own: what udev has once made a link of in /dev/mapper, it also takes away.
OPENED = Path("/run/machineos/volumes")
KEY_SIZE = 64  # of AES-256 in XTS mode
SECTOR_SIZE = 4096
_SECTOR = 512  # what device mapper counts in
_KEY_TYPE = "logon"  # of keyrings(7): the kernel uses it, and nobody reads it


class CryptVolume(msgspec.Struct, frozen=True):
    """An encrypted device and what it is opened as. ``cipher`` in the kernel's words, ``offset`` in
    bytes, ``uuid`` that of the LUKS header."""

    device: Path
    name: str
    uuid: str
    cipher: str
    offset: int


def parameters(volume: CryptVolume, device: str, key: str) -> str:
    """Return the table line; blocks that are discarded are given back to what lies below."""
    options = ("allow_discards", f"sector_size:{SECTOR_SIZE}")
    words = (
        volume.cipher, f":{KEY_SIZE}:{_KEY_TYPE}:{key}", 0, device, volume.offset // _SECTOR,
        len(options), *options,
    )  # fmt: skip
    return " ".join(str(word) for word in words)


def key_of(line: str) -> str | None:
    """Return what the key in a table line is called, None when it is no key of the kernel's."""
    name = line.partition(f" :{KEY_SIZE}:{_KEY_TYPE}:")[2]
    return name.split(" ")[0] or None
