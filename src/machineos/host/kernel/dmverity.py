"""dm-verity volumes: files that the kernel mounts and checks block by block.

Shared with the initrd: standard library and core only. A volume is opened with a signature of its
root hash, so the kernel itself decides whether a key that it trusts vouches for it; there is no
way here to open one without. Kernel documentation: admin-guide/device-mapper/verity. The names are
those of libcryptsetup, so ``veritysetup status`` and ``close`` work on what is opened here.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import msgspec

from machineos.core import files
from machineos.errors import ConflictError, SignatureError, ToolError, VerificationError
from machineos.host.kernel import devicemapper, keyring, loopdev
from machineos.host.kernel.superblock import BLOCK, Superblock

if TYPE_CHECKING:
    from pathlib import Path

    from machineos.core.word import RootHash
    from machineos.host.kernel.devicemapper import DeviceMapper, Table
    from machineos.host.kernel.loopdev import LoopDevice

_TARGET = "verity"
_SIGNED = "root_hash_sig_key_desc"
_GOOD = "V"
_NO_KEY = frozenset({errno.ENOKEY, errno.EKEYREJECTED, errno.EBADMSG, errno.EKEYREVOKED})


class Volume(msgspec.Struct, frozen=True):
    """A file with appended verity data; ``signature`` is that of ``root_hash`` in PKCS#7."""

    image: Path
    name: str
    root_hash: RootHash
    superblock: Superblock
    signature: bytes


def parameters(volume: Volume, device: str, key: str) -> str:
    """Return the table line: data and tree on ``device``, signature in the kernel's key ``key``."""
    blocks = volume.superblock.data_blocks
    words = (
        1, device, device, BLOCK, BLOCK, blocks, blocks + 1, "sha256", volume.root_hash,
        volume.superblock.salt or "-", 2, _SIGNED, key,
    )  # fmt: skip
    return " ".join(str(word) for word in words)


def open_volume(volume: Volume) -> Path:
    """Open ``volume`` and return its device node; one that is open already is checked and reused.

    Raises: SignatureError when no trusted key signed the root hash, VerificationError when the
    data does not match it, ConflictError when the name is taken by another volume, MissingError.
    """
    with devicemapper.opened() as mapper:
        present = mapper.find(volume.name)
        if present is not None:
            check_same(volume, mapper.table(volume.name), mapper.status(volume.name))
            return present
        with _attached(volume.image) as device:
            number = os.fstat(device.fd).st_rdev
            node = _open(mapper, volume, f"{os.major(number)}:{os.minor(number)}")
        _check_start(mapper, volume, node)
        return node


def close_volume(name: str) -> None:
    """Close a volume; one that is not open is no error. Raises: ToolError when it is in use."""
    with devicemapper.opened() as mapper:
        mapper.remove(name)


def check_same(volume: Volume, table: Table, status: str) -> None:
    """Refuse a device that is open under this volume's name unless it is this volume, signed and
    without a fault so far. Raises: ConflictError, VerificationError."""
    words = table.parameters.split()
    device = words[1] if len(words) > 1 else ""
    wanted = parameters(volume, device, "").split()
    if table.target != _TARGET or words[3 : len(wanted) - 2] != wanted[3:-2]:
        raise ConflictError(f"device {volume.name} is open with another root hash")
    if _SIGNED not in words:
        raise ConflictError(f"device {volume.name} is open without a signature of its root hash")
    if status != _GOOD:
        raise VerificationError(f"device {volume.name}: the kernel found blocks that were changed")


def _attached(image: Path) -> LoopDevice:
    """Show ``image`` as a block device; the device-mapper table keeps it when we let go."""
    source = files.open_regular(image)
    try:
        return loopdev.attach(source, label=image.name)
    finally:
        os.close(source)


def _open(mapper: DeviceMapper, volume: Volume, device: str) -> Path:
    uuid = f"CRYPT-VERITY-{volume.superblock.uuid}-{volume.name}"
    key = f"machineos:{volume.name}"
    size = volume.superblock.data_blocks * BLOCK
    line = devicemapper.Table(_TARGET, size, parameters(volume, device, key))
    try:
        with keyring.thread_key(key, volume.signature):
            return mapper.create(volume.name, uuid, line)
    except OSError as error:
        if error.errno in _NO_KEY:
            raise SignatureError(
                f"{volume.image}: the kernel refuses the signature of root hash "
                f"{volume.root_hash}: no key that it trusts made it"
            ) from error
        raise VerificationError(
            f"{volume.image}: cannot be opened under {volume.root_hash}: {error.strerror}"
        ) from error


def _check_start(mapper: DeviceMapper, volume: Volume, node: Path) -> None:
    """Read the first block: a tree that does not belong to the root hash shows at once."""
    try:
        descriptor = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.pread(descriptor, BLOCK, 0)
        finally:
            os.close(descriptor)
        good = mapper.status(volume.name) == _GOOD
    except OSError as error:
        if error.errno != errno.EIO:
            raise ToolError(f"{node}: {error.strerror}") from error
        good = False
    if not good:
        mapper.remove(volume.name)
        raise VerificationError(f"{volume.image}: does not match its root hash {volume.root_hash}")
