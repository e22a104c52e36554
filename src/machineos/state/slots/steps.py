"""What a slot is and how it comes to be: its files, its steps, its boot entry. Touches nothing.

A slot is one folder on the EFI partition with a shim and the kernel image that this shim loads,
which is called ``grubx64.efi`` because shim knows no other name. Invariant: the file that the
firmware starts is written last, after all that such a boot needs; and a boot entry is made only
after every file was read back from the disk; so what an entry points to is whole (shim's README,
"fallback"; UEFI 2.10, 3.5.1.1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from machineos.core.digest import Digest
from machineos.core.steps import Step
from machineos.document.rules.bootable import KERNEL, SHIM
from machineos.errors import BootError, UsageError
from machineos.host.efi.efibootmgr import BootEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


# Facts that hold: what a boot finds is there, and what the firmware starts is whole.
STORED, CONFIGURED = "images stored", "configuration stored"
READ_BACK = "boot files read back"
PREFIX = "machineos-"
_SLOT = re.compile(rf"{PREFIX}[a-z0-9]{{1,64}}")
_SHIM, _KERNEL = SHIM.removeprefix("/"), KERNEL.removeprefix("/")
_NEXT = "grubx64.efi"


@dataclass(frozen=True, slots=True)
class SlotFile:
    """``source`` in the bootkit becomes ``name`` on the EFI partition."""

    source: str
    name: str


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot by its name, ``machineos-`` and lower-case letters or digits. Raises: UsageError."""

    name: str

    def __post_init__(self) -> None:
        if not _SLOT.fullmatch(self.name):
            raise UsageError(f"{self.name[:80]!r} is not the name of a slot")

    @property
    def files(self) -> tuple[SlotFile, ...]:
        """The files, in the order of writing."""
        return _pair(self.name, "shimx64.efi")

    @property
    def loader(self) -> str:
        """What the firmware starts, as it writes paths."""
        return f"\\EFI\\{self.name}\\shimx64.efi"


def fallback_files() -> tuple[SlotFile, ...]:
    """Return the files for firmware that lost its boot entries, in the order of writing."""
    return _pair("BOOT", "BOOTX64.EFI")


def _pair(folder: str, loader: str) -> tuple[SlotFile, ...]:
    return (
        SlotFile(_KERNEL, f"EFI/{folder}/{_NEXT}"),
        SlotFile(_SHIM, f"EFI/{folder}/{loader}"),
    )


@dataclass(frozen=True, slots=True)
class CopyFile(Step[Digest]):
    """Copy ``source`` to ``name`` on the file system at ``root``, durably, with the folders that it
    needs; the answer is the digest of what was written."""

    point: ClassVar[str] = "boot-file"
    after: ClassVar[frozenset[str]] = frozenset({STORED, CONFIGURED})
    source: Path
    root: Path
    name: str

    @property
    def where(self) -> str:
        """The file."""
        return self.name


@dataclass(frozen=True, slots=True)
class ReadBack(Step[Digest]):
    """The digest of what the disk, not the kernel's memory, has as ``name`` at ``root``."""

    root: Path
    name: str


@dataclass(frozen=True, slots=True)
class ListEntries(Step[tuple[BootEntry, ...]]):
    """The boot entries of this machine's firmware."""


@dataclass(frozen=True, slots=True)
class DeleteEntry(Step[None]):
    """Remove the boot entry ``number`` (hex)."""

    point: ClassVar[str] = "forget-entry"
    after: ClassVar[frozenset[str]] = frozenset({READ_BACK})
    number: str

    @property
    def where(self) -> str:
        """The entry."""
        return self.number


@dataclass(frozen=True, slots=True)
class CreateEntry(Step[None]):
    """Add a boot entry for ``loader`` on a partition of ``disk`` (from 1), first in the order."""

    point: ClassVar[str] = "boot-entry"
    after: ClassVar[frozenset[str]] = frozenset({READ_BACK})
    disk: Path
    partition: int
    description: str
    loader: str

    @property
    def where(self) -> str:
        """The slot."""
        return self.description


def write_files(bootkit: Path, root: Path, files: Sequence[SlotFile]) -> tuple[CopyFile, ...]:
    """Return the steps that write ``files`` of the mounted ``bootkit`` to the partition at
    ``root``."""
    return tuple(CopyFile(bootkit / file.source, root, file.name) for file in files)


def read_files(root: Path, files: Sequence[SlotFile]) -> tuple[ReadBack, ...]:
    """Return the steps that read ``files`` back. Between these and those that wrote them the file
    system has to be unmounted: not every one reads from the disk when it is told to."""
    return tuple(ReadBack(root, file.name) for file in files)


def check_read_back(path: Path, written: Digest, read: Digest) -> None:
    """Raise BootError unless a file was read back as it was written."""
    if read != written:
        raise BootError(f"{path}: the disk does not give back what was written")


def point_to(
    slot: Slot, disk: Path, partition: int, entries: Sequence[BootEntry]
) -> tuple[Step[None], ...]:
    """Return the steps that make the firmware boot ``slot`` and forget the slots of earlier
    installations; entries of others stay."""
    old = tuple(DeleteEntry(e.number) for e in entries if e.description.startswith(PREFIX))
    return (*old, CreateEntry(disk, partition, slot.name, slot.loader))


class SlotHost(Protocol):
    """What the steps of this room need of a machine."""

    def copy_file(self, source: Path, root: Path, name: str) -> Digest:
        """See ``CopyFile``. Raises: OSError, SpaceError."""
        ...

    def read_back(self, root: Path, name: str) -> Digest:
        """See ``ReadBack``. Raises: OSError."""
        ...

    def list_entries(self) -> tuple[BootEntry, ...]:
        """See ``ListEntries``. Raises: ToolError."""
        ...

    def delete_entry(self, number: str) -> None:
        """See ``DeleteEntry``. Raises: ToolError."""
        ...

    def create_entry(self, disk: Path, partition: int, description: str, loader: str) -> None:
        """See ``CreateEntry``. Raises: ToolError."""
        ...


CALLS: Mapping[type[Step[Any]], Callable[[SlotHost, Any], object]] = {
    CopyFile: lambda host, step: host.copy_file(step.source, step.root, step.name),
    ReadBack: lambda host, step: host.read_back(step.root, step.name),
    ListEntries: lambda host, _: host.list_entries(),
    DeleteEntry: lambda host, step: host.delete_entry(step.number),
    CreateEntry: lambda host, step: host.create_entry(
        step.disk, step.partition, step.description, step.loader
    ),
}
