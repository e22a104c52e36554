"""The volumes of services on a disk: what authenticates their blocks, and LUKS2 headers as
cryptsetup writes them (on-disk format 1.1.1)."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path

from machineos.boot.volumesteps import Shown
from machineos.core.secret import Secret
from machineos.errors import ConflictError
from machineos.state.volumes.sealed import KIND, device_of, integrity_key, machine_key, make_token
from machineos.trust.wrap.hpke import public_key

STORAGE_KEY = bytes(reversed(range(32)))
_BINARY = struct.Struct(">6sHQQ48s32s64s40s48sQ184s64s")
_SIZE = 16 << 10
# As integritysetup makes it: magic, version 5, interleave, tags of 32 bytes, sections, sectors of
# data, fixed padding and HMAC, blocks of 4096 bytes.
SUPERBLOCK = struct.pack("<8sBBHIQIBB2xQ", b"integrt\0", 5, 15, 32, 124, 1 << 24, 0x18, 3, 0, 0)
UUID = "0b0f8dd4-37d6-4b15-8b9e-3f1d8a1c7a11"


def luks2_header(body: dict[str, object], *, sequence: int = 1) -> bytes:
    """Return both headers with this JSON, and a little of what follows them."""
    return b"".join(_half(body, number, sequence) for number in (0, 1)).ljust(1 << 16, b"\0")


def _half(body: dict[str, object], number: int, sequence: int) -> bytes:
    magic = (b"LUKS\xba\xbe", b"SKUL\xba\xbe")[number]
    nothing = b""
    words = (magic, 2, _SIZE, sequence, nothing, b"sha256", nothing, UUID.encode(), nothing,
             number * _SIZE, nothing)  # fmt: skip
    text = json.dumps(body).encode().ljust(_SIZE - 4096, b"\0")
    unsigned = _BINARY.pack(*words, bytes(64)).ljust(4096, b"\0") + text
    checksum = hashlib.sha256(unsigned).digest()
    return _BINARY.pack(*words, checksum).ljust(4096, b"\0") + text


def volume_header(name: str, *, key: bytes = STORAGE_KEY) -> bytes:
    """Return the header of a volume as mosd makes it on the machine with this storage key."""
    recipient = public_key(machine_key(Secret(key)))
    token = json.loads(make_token(recipient, Secret(b"v" * 64), name, random=os.urandom))
    assert token["type"] == KIND
    return luks2_header({"keyslots": {}, "segments": {}, "tokens": {"0": token}})


@dataclass
class Storage:
    """What lies on a partition for volumes: the key of its blocks, headers by name of volume;
    ``broken`` are those that cannot be read, ``taken`` those whose device is there already,
    ``damage`` is what LVM says of others; of a ``dead`` one nothing can be read."""

    key: bytes = integrity_key(Secret(STORAGE_KEY)).reveal()
    headers: dict[str, bytes] = field(default_factory=dict)
    broken: frozenset[str] = frozenset()
    taken: frozenset[str] = frozenset()
    superblock: bytes = SUPERBLOCK
    damage: str = ""
    dead: bool = False

    def start(self, device: Path, size: int) -> bytes:
        """Return what the partition begins with. Raises: OSError."""
        if self.dead:
            raise OSError(5, os.strerror(5), str(device))
        return self.superblock.ljust(size, b"\0")[:size]


@dataclass
class OpenStorage:
    """What a boot has of it."""

    storage: Storage | None = None
    begun: bool = False
    complaint: str = ""
    opened: dict[str, Path] = field(default_factory=dict)

    def begin(self, content: object, key: bytes) -> None:
        """Open what ``key`` authenticates. Whatever fails shows when the volumes are listed."""
        self.begun = True
        if not isinstance(content, Storage):
            self.complaint = "integritysetup: no superblock"
        elif content.key != key:
            self.complaint = "lvm: no such group"
        else:
            self.storage, self.complaint = content, content.damage

    def shown(self) -> Shown:
        """Return the volumes that LVM shows, and what was wrong."""
        return Shown(tuple(sorted(self.storage.headers)) if self.storage else (), self.complaint)

    def header(self, device: Path) -> bytes | None:
        """Return what a device shows, None when it is none of these. Raises: OSError."""
        name = device.name
        if self.storage is None or device != device_of(name):
            return None
        if name in self.storage.broken:
            raise OSError(5, os.strerror(5), str(device))
        return self.storage.headers.get(name)

    def open(self, device: Path, name: str, uuid: str, key: Secret) -> None:
        """Do as the kernel does, which takes any key. Raises: ConflictError."""
        assert (uuid, len(key)) == (UUID, 64)
        if self.storage and device.name in self.storage.taken:
            raise ConflictError(f"a device {name} exists already")
        self.opened[name] = device
