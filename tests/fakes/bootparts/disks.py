"""Disks with partitions: LUKS with its authenticated header, and the file systems on them."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from fakes.bootparts.files import Tree
from machineos.core.secret import Secret
from machineos.errors import VerificationError
from machineos.host.disk.device import Partition
from machineos.state.volumes.header import RECORD_OFFSET, header_record, passphrase
from machineos.state.volumes.sealed import make_token
from machineos.trust.wrap.hpke import public_key
from machineos.trust.wrap.storage import integrity_key, sealing_key

NULL, XTS = "cipher_null-ecb", "aes-xts-plain64"
_TOLD_AT = 512  # where what this fake knows of a device lies, in one with a real header


@dataclass
class Volume:
    """A file system: ``kind`` as mount(2) calls it, the label that can be seen without mounting;
    ``locked`` when its disk cannot be written to."""

    kind: str
    tree: Tree
    label: str = ""
    locked: bool = False


@dataclass
class Luks:
    """A LUKS device. ``area`` and ``record`` are what lies on the disk; ``plain`` what is inside,
    written under the volume key ``volume``.

    ``later`` is what the disk shows from the second reading of its header on.
    """

    area: bytes
    record: bytes
    volume: str
    plain: Volume
    later: bytes | None = None
    readings: int = 0

    def header(self) -> bytes:
        """Return what is read from the disk this time."""
        self.readings += 1
        if self.later is not None and self.readings > 1:
            return self.later
        return self.area + self.record


@dataclass
class Storage(Volume):
    """A device with integrity under a key, and the volumes that LVM has on it."""

    key: bytes = b""
    volumes: dict[str, Luks] = field(default_factory=dict)


@functools.cache
def luks_area(volume: str, key: bytes, *, cipher: str = "aes-xts-plain64") -> bytes:
    """Return the header area of a device that ``key`` opens."""
    slot = hashlib.sha256(passphrase(Secret(key)).reveal()).hexdigest()
    text = json.dumps({"volume": volume, "slot": slot, "cipher": cipher})
    return (b"LUKS\xba\xbe\0\x02" + text.encode()).ljust(RECORD_OFFSET, b"\0")


def luks(volume: str, key: bytes, plain: Volume) -> Luks:
    """Return a device as the installer makes it with this key."""
    return Luks(luks_area(volume, key), _record(volume, key), volume, plain)


@functools.cache
def _record(volume: str, key: bytes) -> bytes:
    return header_record(Secret(key), luks_area(volume, key))


def sealed(volume: str, public: bytes, uuid: str, plain: Volume, *, cipher: str = XTS) -> Luks:
    """Return a device as mosd makes it, sealed to a public key."""
    secret = volume.encode().ljust(32, b".")[:32]
    token = make_token(public, Secret(secret), uuid=uuid, random=lambda size: b"e" * size)
    segment = {
        "type": "crypt", "offset": "4194304", "size": "dynamic", "iv_tweak": "0",
        "encryption": cipher, "sector_size": 4096,
    }  # fmt: skip
    body = {"tokens": {"0": json.loads(token)}, "segments": {"0": segment}, "config": {}}
    binary = (b"LUKS\xba\xbe\0\x02" + (16384).to_bytes(8, "big")).ljust(0xA8, b"\0")
    told = luks_area(volume, secret, cipher=cipher)[8:].partition(b"\0")[0]
    head = (binary + uuid.encode()).ljust(_TOLD_AT, b"\0") + told
    area = (head.ljust(4096, b"\0") + json.dumps(body).encode()).ljust(RECORD_OFFSET, b"\0")
    return Luks(area, b"", volume, plain)


def storage(key: bytes, *names: str) -> Storage:
    """Return what is on the partition for data of the machine with this storage volume key."""
    public = public_key(sealing_key(Secret(key)))
    volumes = {
        name: sealed(name, public, str(UUID(int=number)), Volume("ext4", Tree()))
        for number, name in enumerate(names, 1)
    }
    integrity = integrity_key(Secret(key)).reveal()
    return Storage("integrity", Tree(), key=integrity, volumes=volumes)


def opened(device: Luks, path: Path, header: bytes, key: bytes) -> Volume:
    """Return what cryptsetup shows, by this header: it believes what stands there.

    Raises: VerificationError.
    """
    start = _TOLD_AT if header[8:9] == b"\0" else 8
    try:
        text = json.loads(header[start:4096].partition(b"\0")[0])
    except ValueError as error:
        reason = "Device is not a valid LUKS device."
        raise VerificationError(_refused(path, reason)) from error
    if text["slot"] != hashlib.sha256(passphrase(Secret(key)).reveal()).hexdigest():
        raise VerificationError(_refused(path, "No key available with this passphrase."))
    if text["cipher"] != NULL and text["volume"] != device.volume:
        raise VerificationError(_refused(path, "Integrity check failed."))
    return device.plain


def _refused(path: Path, reason: str) -> str:
    return f"{path}: does not open with this machine's key: {reason}"


@dataclass
class Disk:
    """A disk of the machine, seen once its ``driver`` is loaded and it is ``at`` seconds.

    ``parts`` are (kernel name, label, content); ``whole`` is a file system without partitions.
    """

    name: str
    parts: list[tuple[str, str, Luks | Volume]] = field(default_factory=list)
    whole: Volume | None = None
    alias: str = ""
    driver: str = ""
    at: float = 0.0
    optical: bool = False
    broken: bool = False

    def content(self, device: str) -> Luks | Volume | None:
        """Return what is on the disk or partition of this kernel name. Raises: OSError."""
        if device != self.name and device not in {name for name, _, _ in self.parts}:
            return None
        if self.broken:
            raise OSError(5, os.strerror(5), f"/dev/{device}")
        if device == self.name:
            return self.whole
        return next(content for name, _, content in self.parts if name == device)

    def partitions(self) -> list[Partition]:
        """Return the partitions that have a name."""
        return [Partition(self.name, name, label) for name, label, _ in self.parts if label]

    def trees(self) -> list[Tree]:
        """Return every file system of it."""
        found = [self.whole.tree] if self.whole else []
        for _, _, content in self.parts:
            found.append(content.plain.tree if isinstance(content, Luks) else content.tree)
        return found
