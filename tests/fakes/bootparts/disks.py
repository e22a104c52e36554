"""Disks with partitions: LUKS with its authenticated header, and the file systems on them."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from fakes.bootparts.files import Tree
from fakes.bootparts.volumes import Storage
from machineos.core.secret import Secret
from machineos.errors import VerificationError
from machineos.host.disk.device import Partition
from machineos.state.volumes.header import RECORD_OFFSET, header_record, passphrase

NULL = "cipher_null-ecb"


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

    def start(self, _device: Path, size: int) -> bytes:
        """Return what is read from the disk this time."""
        return self._header()[:size]

    def _header(self) -> bytes:
        self.readings += 1
        if self.later is not None and self.readings > 1:
            return self.later
        return self.area + self.record


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


def opened(device: Luks, path: Path, header: bytes, key: bytes) -> Volume:
    """Return what cryptsetup shows, by this header: it believes what stands there.

    Raises: VerificationError.
    """
    try:
        text = json.loads(header[8:4096].partition(b"\0")[0])
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
    parts: list[tuple[str, str, Luks | Volume | Storage]] = field(default_factory=list)
    whole: Volume | None = None
    alias: str = ""
    driver: str = ""
    at: float = 0.0
    optical: bool = False
    broken: bool = False

    def content(self, device: str) -> Luks | Volume | Storage | None:
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
            if not isinstance(content, Storage):
                found.append(content.plain.tree if isinstance(content, Luks) else content.tree)
        return found
