"""Bootable ISO 9660 images by ``xorriso``: El Torito for optical drives, GPT for USB sticks.

The EFI boot image is a file of the ISO. El Torito counts it in 16 bits of 512 bytes; one of 32 MiB
or more gets the count 0, which says that it goes on to the end of the volume (UEFI, section
13.3.2.1), and what was appended behind the volume is not there for a firmware that believes that.
"""

from __future__ import annotations

import struct
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from machineos.core.command import Command
from machineos.errors import VerificationError
from machineos.host.disk.sfdisk import ESP

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = 2048
_SECTOR = 512
_TIMEOUT = 600.0
# El Torito, version 1.0, figures 7, 2 and 3: boot record, validation entry, initial entry
RECORD_AT, _CATALOG_AT = 17 * BLOCK, 0x47
_RECORD = b"\0CD001\x01EL TORITO SPECIFICATION"
_INITIAL = struct.Struct("<32x B B H B x H I")
_NAMESPACE = uuid.UUID("6f1d4c0e-5f0b-4f43-9a53-0c1a6f6d0b61")


def make_command(tree: Path, esp: str, output: Path, *, label: str, epoch: int) -> Command:
    """Return the command that writes ``tree`` as ``output``; ``esp`` is the name of the EFI boot
    image in it."""
    when = datetime.fromtimestamp(epoch, UTC).strftime("%Y%m%d%H%M%S00")
    argv = (
        "xorriso", "-as", "mkisofs", "-quiet", "-iso-level", "3", "-R", "-V", label,
        f"--modification-date={when}", "--set_all_file_dates", when,
        "-e", esp, "-no-emul-boot", "-o", str(output), str(tree),
    )  # fmt: skip
    return Command(argv, _TIMEOUT, env=(("SOURCE_DATE_EPOCH", str(epoch)),))


def catalog_at(record: bytes) -> int:
    """Return where the boot catalog is, in bytes; ``record`` is the ISO's block ``RECORD_AT``.

    Raises: VerificationError (it is no boot record of El Torito).
    """
    if not record.startswith(_RECORD):
        raise VerificationError("the ISO has no boot record of El Torito")
    return int.from_bytes(record[_CATALOG_AT : _CATALOG_AT + 4], "little") * BLOCK


def boot_image_at(catalog: bytes) -> int:
    """Return where the EFI boot image begins, in bytes, by the block of the boot catalog."""
    *_, block = _INITIAL.unpack_from(catalog)
    return int(block) * BLOCK


def partition_command(image: Path, *, start: int, size: int, label: str, epoch: int) -> Command:
    """Return the command that gives the ISO a GPT with the EFI boot image as its only partition, in
    the room that ISO 9660 leaves before and behind itself; ``start`` and ``size`` in bytes."""
    disk, part = (uuid.uuid5(_NAMESPACE, f"{label} {epoch} {what}") for what in ("disk", "esp"))
    table = (
        f"label: gpt\nlabel-id: {disk}\nfirst-lba: 34\n"
        f"start={start // _SECTOR}, size={size // _SECTOR}, type={ESP}, uuid={part}\n"
    )
    argv = ("sfdisk", "--quiet", "--wipe", "never", "--wipe-partitions", "never", str(image))
    return Command(argv, _TIMEOUT, input=table.encode())
