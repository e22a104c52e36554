"""The machine that the installer runs on, for real: every step of an installation, done.

Decides nothing. What it mounted and opened it takes down when it is left, newest first, however
that comes about.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from machineos.core.files import read_bounded
from machineos.errors import MachineOSError
from machineos.host.disk import blockdev, inuse, tools
from machineos.host.kernel import keyring
from machineos.host.kernel.mount import Flag, mount, unmount
from machineos.install import fetch
from machineos.install.steps import Memory
from machineos.oci.layout.folder import LayoutRegistry, LayoutRepository
from machineos.state.config.store import create_store, write_beside
from machineos.state.images.volume import mount_stored
from machineos.state.slots import act as slots
from machineos.state.store.act import store_image
from machineos.state.volumes import config

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path
    from uuid import UUID

    from machineos.core.clock import Clock
    from machineos.core.digest import Digest
    from machineos.core.secret import Secret
    from machineos.document.product.install import Target
    from machineos.document.verify.published import Fetched
    from machineos.host.disk.device import Disk, Partition
    from machineos.host.disk.sfdisk import PartitionSpec
    from machineos.host.disk.usage import Usage
    from machineos.host.efi.efibootmgr import BootEntry
    from machineos.install.steps import Inspected, Signatures
    from machineos.oci.model.place import Place
    from machineos.oci.model.repository import Registry
    from machineos.state.volumes.steps import Kind
    from machineos.trust.verify.chain import Publisher

_SAFE = Flag.NOSUID | Flag.NODEV | Flag.NOEXEC


class LinuxHost:
    """This machine. ``say`` shows a line; ``sysfs`` is where block devices are listed."""

    def __init__(
        self, clock: Clock, say: Callable[[str], None], *, sysfs: Path = blockdev.SYSFS
    ) -> None:
        self._clock = clock
        self._say = say
        self._sysfs = sysfs
        self._mounted: list[Path] = []
        self._unlocked = False
        self._open = ExitStack()
        self._registries: dict[Place, Registry] = {}

    def __enter__(self) -> LinuxHost:
        return self

    def __exit__(self, *_: object) -> None:
        for folder in reversed(self._mounted):
            with suppress(MachineOSError):
                unmount(folder, lazy=True)
        self._mounted.clear()
        if self._unlocked:
            with suppress(MachineOSError):
                self.lock_config()
        self._open.close()

    # -- looking

    def say(self, text: str) -> None:
        """Show a line."""
        self._say(text)

    def now(self) -> datetime:
        """The time of day."""
        return self._clock.now()

    def ticks(self) -> float:
        """Seconds that never go back."""
        return self._clock.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        self._clock.sleep(seconds)

    def list_disks(self) -> tuple[Disk, ...]:
        """The disks of this machine."""
        return blockdev.disks(self._sysfs)

    def look_at_use(self, nodes: tuple[Path, ...]) -> Usage:
        """What uses the disks ``nodes``. Raises: OSError, ToolError."""
        return inuse.look(nodes, self._sysfs)

    def list_partitions(self) -> tuple[Partition, ...]:
        """The partitions of this machine that have a name and a device node."""
        return tuple(one for one in blockdev.partitions(self._sysfs) if one.device.exists())

    def read_label(self, device: Path) -> str:
        """The label of the file system on a device."""
        return blockdev.volume_label(device)

    def read_small_disk(
        self, device: Path, folder: Path, names: tuple[str, ...], *, limit: int
    ) -> tuple[str | None, ...]:
        """The texts of files on a FAT, seen at ``folder``. Raises: ToolError, DocumentError."""
        self.mount(device, folder, "vfat", read_only=True)
        try:
            return tuple(read_text(folder / name, limit=limit) for name in names)
        finally:
            self.unmount(folder)

    def read_file(self, path: Path, *, limit: int) -> bytes:
        """The content of a regular file. Raises: MissingError, DocumentError."""
        return read_bounded(path, limit)

    def read_key(self, name: str) -> Secret:
        """A secret of root's keyring. Raises: MissingError."""
        return keyring.read_secret(name)

    def revoke_key(self, name: str) -> None:
        """Make it unreadable for good. Raises: MissingError."""
        keyring.revoke_secret(name)

    # -- fetching

    def resolve(self, place: Place) -> None:
        """Ask the registry of a place for its tag once. Raises: TransferError, MissingError."""
        self._registry(place).repository(place.name).resolve(place.tag)

    def make_staging(self, folder: Path) -> Memory:
        """Make a folder in memory. Raises: ToolError."""
        folder.mkdir(parents=True, exist_ok=True)
        mount("tmpfs", folder, "tmpfs", _SAFE, "size=80%,mode=0700")
        info = os.statvfs(folder)
        available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return Memory(info.f_bavail * info.f_frsize, available)

    def fetch_manifest(
        self, place: Place, *, ca_pem: bytes, at: datetime, product: UUID
    ) -> Fetched:
        """Read the manifest of a place, verified. Raises: see ``fetch``."""
        registry = self._registry(place)
        return fetch.fetch_manifest(registry, place, ca_pem=ca_pem, at=at, product=product)

    def inspect_image(self, place: Place, target: Target, publisher: Publisher) -> Inspected:
        """Read and check the image manifest of a target. Raises: see ``fetch``."""
        return fetch.inspect_image(self._registry(place), place, target, publisher)

    def fetch_image(self, place: Place, target: Target, signatures: Signatures, into: Path) -> None:
        """Copy the image of a target into memory. Raises: see ``fetch``."""
        layout = LayoutRepository(into, writable=True)
        fetch.fetch_image(self._registry(place), place, target, signatures, layout)

    def _registry(self, place: Place) -> Registry:
        if place not in self._registries:
            self._registries[place] = self._connect(place)
        return self._registries[place]

    def _connect(self, place: Place) -> Registry:
        if place.at.folder is not None:
            return LayoutRegistry(place.at.folder)
        from machineos.oci.registry.client import HttpRegistry  # a medium of its own needs no HTTP

        client = HttpRegistry(place.at.host, plain_http=place.plain_http, clock=self._clock)
        return self._open.enter_context(client)

    # -- the disk

    def write_table(self, device: Path, partitions: tuple[PartitionSpec, ...]) -> None:
        """Replace the partition table. Raises: ToolError."""
        tools.write_table(device, partitions)

    def make_filesystem(self, kind: Kind, device: Path, *, label: str) -> None:
        """Make a file system. Raises: ToolError."""
        tools.make_filesystem(kind, device, label=label)

    def make_group(self, name: str, device: Path, *, key: Secret) -> None:
        """Make a volume group on blocks that are authenticated. Raises: ToolError."""
        tools.make_group(name, device, key=key)

    def mount(self, device: Path, folder: Path, kind: Kind, *, read_only: bool) -> None:
        """Mount a device at a folder, which is made. Raises: ToolError, MissingError."""
        folder.mkdir(parents=True, exist_ok=True)
        mount(device, folder, kind, _SAFE | (Flag.RDONLY if read_only else Flag.NONE))
        self._mounted.append(folder)

    def unmount(self, folder: Path) -> None:
        """Unmount what is at a folder. Raises: ToolError, MissingError."""
        unmount(folder)
        if folder in self._mounted:
            self._mounted.remove(folder)

    def store_image(
        self, source: Path, store: Path, image: Digest, *, tag: str
    ) -> tuple[Digest, ...]:
        """Copy an image into the store. Raises: see ``state.store``."""
        return store_image(source, store, image, tag=tag)

    def mount_image(self, source: Path, image: Digest, signature: bytes, folder: Path) -> None:
        """Mount the layer of an image. Raises: see ``state.images``."""
        mount_stored(source, image, signature, folder)
        self._mounted.append(folder)

    def format_config(self, key: Secret, device: Path, *, uuid: str) -> None:
        """Make the configuration volume. Raises: ToolError."""
        config.format_config(key, device, uuid=uuid)

    def unlock_config(self, key: Secret, device: Path) -> Path:
        """Open the configuration volume. Raises: VerificationError."""
        mapped = config.unlock_config(key, device)
        self._unlocked = True
        return mapped

    def lock_config(self) -> None:
        """Close the configuration volume. Raises: ToolError."""
        config.lock_config()
        self._unlocked = False

    def create_store(
        self, folder: Path, files: Mapping[str, bytes], *, message: str, seconds: int
    ) -> str:
        """Make the store with its first commit. Raises: ConflictError."""
        return create_store(folder, files, message=message, seconds=seconds)

    def write_beside(self, folder: Path, name: str, data: Secret, *, mode: int) -> None:
        """Write a file beside the store, durably. Raises: OSError, SpaceError."""
        write_beside(folder, name, data, mode=mode)

    # -- boot files and the firmware

    def trust_publisher(self, certificate: bytes) -> None:
        """Have the kernel trust a publisher. Raises: SignatureError, MissingError."""
        trusted = keyring.find_keyring(keyring.SECONDARY)
        keyring.add_certificate(trusted, certificate, what="publisher")

    def copy_file(self, source: Path, root: Path, name: str) -> Digest:
        """Copy a boot file, durably. Raises: OSError, SpaceError."""
        return slots.copy_file(source, root, name)

    def read_back(self, root: Path, name: str) -> Digest:
        """Read a boot file from the disk. Raises: OSError."""
        return slots.read_back(root, name)

    def list_entries(self) -> tuple[BootEntry, ...]:
        """The boot entries of the firmware. Raises: ToolError."""
        return slots.list_entries()

    def delete_entry(self, number: str) -> None:
        """Remove a boot entry. Raises: ToolError."""
        slots.delete_entry(number)

    def create_entry(self, disk: Path, partition: int, description: str, loader: str) -> None:
        """Add a boot entry, first in the order. Raises: ToolError."""
        slots.create_entry(disk, partition, description, loader)


def read_text(path: Path, *, limit: int) -> str | None:
    """Return the text of a small file without space at its ends, None when there is none.

    Raises: DocumentError (too large, or no regular file).
    """
    if not path.exists():
        return None
    return read_bounded(path, limit).decode("ascii", "replace").strip()
